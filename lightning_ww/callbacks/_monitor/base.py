"""`Monitor`: the base class of monitors, which takes, publishes and remembers measurements, and times them.

Your own monitor defines four methods: `_prepare` checks the model before training, `_snapshot` takes the inputs of a
measurement, `_measure` computes its results, and `_view` says what is shown of them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, get_args

from typing_extensions import override

from lightning_ww import _checks
from lightning_ww.callbacks._monitor.acting import Acting, OnFlag
from lightning_ww.callbacks._monitor.background import Background, Taken
from lightning_ww.callbacks._monitor.beside import Execution
from lightning_ww.callbacks._monitor.following import Following
from lightning_ww.callbacks._monitor.guard import Guard
from lightning_ww.callbacks._monitor.handing_over import Heir
from lightning_ww.callbacks._monitor.layout import Category, flagged_layers
from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer, callbacks
from lightning_ww.callbacks._monitor.publisher import Publisher, to_callback_metrics
from lightning_ww.callbacks._monitor.run import Pending, Run
from lightning_ww.callbacks._monitor.schedule import Schedule, logged_step
from lightning_ww.callbacks._monitor.sentences import about_skips
from lightning_ww.callbacks._monitor.triggers import WithTriggers, flag_scalars, judged, others_of
from lightning_ww.callbacks._monitor.view import View
from lightning_ww.history import Findings, History, Measurement, Moment
from lightning_ww.triggers.diagnosis import Diagnosis

if TYPE_CHECKING:
    from lightning_ww.triggers.trigger import Trigger

S = TypeVar("S")
M = TypeVar("M", bound=Findings)
T = TypeVar("T")

UNEXPECTED = ("failed", "meta", "sharded", "quantised", "uninitialised", "unsupported_shape", "unsupported_dtype")
"""Reasons for skipping a layer that cause a warning; the others (norms, biases, ties …) are only in the report."""


class Monitor(Acting, Following, Background[S, M], WithTriggers, ABC, Generic[S, M]):
    """A callback that measures on a schedule, publishes its results, and never disturbs the run.

    Attributes:
        history: The measurements so far; ``history.to_pandas()`` is a table of them.
        measurement: The latest measurement, or ``None``.
        diagnosis: The latest flags.
    """

    KEPT: ClassVar[type[Measurement]] = Measurement
    """The class of the measurements in its history."""

    def __init__(
        self,
        every_n_epochs: int | None,
        every_n_train_steps: int | None,
        *,
        triggers: Sequence[Trigger] | None,
        defaults: Sequence[Trigger],
        measures: Sequence[str],
        panels: bool,
        log_key_prefix: str,
        seed: int,
        max_history: int,
        on_error: Literal["warn", "raise"],
        max_overhead: float | None = None,
        execution: Execution = "auto",
        on_flag: OnFlag | None = None,
    ) -> None:
        super().__init__()
        call = type(self).__name__
        self._schedule = Schedule.checked(call, every_n_epochs, every_n_train_steps)
        self.every_n_epochs = every_n_epochs
        self.every_n_train_steps = every_n_train_steps
        self._set_triggers(triggers, defaults, measures)
        self._set_on_flag(on_flag)
        self.panels = _checks.instance(call, "panels", panels, bool)
        self.max_overhead = _checks.optional_share(call, "max_overhead", max_overhead)
        self.execution = _checks.choice(call, "execution", execution, get_args(Execution))
        self.log_key_prefix = _checks.instance(call, "log_key_prefix", log_key_prefix, str)
        self.seed = _checks.count(call, "seed", seed, least=0)
        self.max_history = _checks.count(call, "max_history", max_history, least=1)
        self.on_error = _checks.choice(call, "on_error", on_error, ("warn", "raise"))
        self._run: Run[M] = self._new_run()
        self._heir = Heir(self)

    # ── The methods that each monitor defines

    @abstractmethod
    @override
    def _prepare(self, trainer: Trainer, pl_module: LightningModule, state: Mapping[str, Any] | None) -> None:
        """Look at the model before the first step, and set up what the run needs.

        Args:
            trainer: The Trainer.
            pl_module: The model.
            state: The state of `Run.memory` from the checkpoint, in a resumed run; else ``None``.

        Raises:
            ArgumentError: If the arguments do not fit the model.
            RefusedError: If nothing can be measured in this run.
        """

    @abstractmethod
    def _snapshot(self, trainer: Trainer, pl_module: LightningModule) -> S:
        """Take the inputs of a measurement, from the model and from the past, on the training thread.

        Raises:
            RefusedError: If nothing can be measured in this run.
        """

    @abstractmethod
    def _measure(self, snapshot: S, moment: Moment) -> M:
        """Measure, as a function of the arguments alone, without the Trainer."""

    @abstractmethod
    def _view(self, measurement: M) -> View:
        """Return what is shown of the results; history, flags and events are up to date."""

    # ── What a user reads and calls

    @property
    def attempts(self) -> int:
        """The number of measurements that were begun, whether or not they succeeded."""
        return self._own_run.attempts

    @property
    def history(self) -> History[Any]:
        """The measurements so far."""
        return self._own_run.history

    @property
    def measurement(self) -> Measurement | None:
        """The latest measurement, or ``None``."""
        return self._own_run.measurement

    @property
    def diagnosis(self) -> Diagnosis:
        """The latest flags."""
        return self._own_run.diagnosis

    @property
    def _own_run(self) -> Run[M]:
        """The run of this monitor, also if its copy in a process that Lightning has started has made it."""
        if (run := self._heir.take()) is not None:
            self._run = run
        return self._run

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        if stage == "fit":
            self._run.guard.run(trainer, partial(self._heir.leave, trainer, self._run), "hand over its history")

    # ── A measurement

    @override
    def _take_measurement(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        *,
        is_baseline: bool = False,
        after_epoch: bool = False,
        is_last: bool = False,
        fatal: tuple[type[Exception], ...] = (),
    ) -> None:
        """Measure, judge, publish, remember; in the background, only begin."""
        run = self._run
        is_waiting = run.batches is not None and not run.batches.is_complete
        if run.is_off or is_waiting or getattr(trainer, "barebones", False):
            return
        self._join(trainer)  # the one before comes first
        if not is_baseline and not is_last and self._leaves_out(trainer):
            return
        self._go_on()
        run.last_step = trainer.global_step
        step = logged_step(trainer, after_epoch=after_epoch)
        moment = Moment(run.history.next_number, trainer.global_step, step, trainer.current_epoch, is_baseline)
        with run.clock.spending() as began:
            if self._is_in_background(trainer) and not is_last:
                begin = partial(self._or_off, trainer, partial(self._begun, trainer, pl_module, moment))
                begun = run.guard.run(trainer, begin, fatal=fatal)
                run.pending = begun or Pending(trainer, moment, None, 0.0)
                return
            take = partial(self._or_off, trainer, partial(self._taken, trainer, pl_module, moment, began))
            self._complete(trainer, run.guard.run(trainer, take, fatal=fatal), moment, began)

    def _taken(self, trainer: Trainer, pl_module: LightningModule, moment: Moment, began: float) -> Taken[M]:
        """Measure and judge."""
        findings = self._of_all(trainer, lambda: self._measure(self._snapshot(trainer, pl_module), moment))
        return self._judged(trainer, findings, moment, time.perf_counter() - began)

    @override
    def _judged(self, trainer: Trainer, findings: M, moment: Moment, seconds: float) -> Taken[M]:
        """Judge what was found; return it with the measurement and its summary."""
        run = self._run
        metrics = self._kept_metrics if findings.layers or findings.skipped else ()
        measurement = self.KEPT.of(moment, findings, metrics)
        seen = run.history.up_to(measurement, findings, others_of(self, trainer))
        run.findings = findings
        run.diagnosis, run.unjudged = judged(self.triggers, seen, partial(run.guard.run, trainer))
        summary = dict(findings.summary)
        if self.triggers:
            summary["num_flagged"] = float(len(run.diagnosis.flagged_layers))
        summary["seconds"] = seconds
        return findings, measurement, summary

    @override
    def _complete(self, trainer: Trainer, taken: Taken[M] | None, moment: Moment, began: float) -> None:
        """Publish and remember, if this succeeded on all processes; all take part, even those where it failed."""
        run = self._run
        run.attempts += 1
        if not trainer.strategy.reduce_boolean_decision(taken is not None, all=True) or taken is None:
            self._agree_to_be_off(trainer)
            run.guard.tell(trainer)
            return
        findings, measurement, summary = taken
        summary = trainer.strategy.broadcast(summary)  # equal on all ranks
        run.held |= summary  # a number without a value now keeps its last value
        to_callback_metrics(trainer, run.held, self.GROUP, self.log_key_prefix)
        run.risen = ()
        remember = partial(self._remember, trainer, measurement, summary)
        run.guard.run(trainer, remember, "remember a measurement")
        publish = partial(self._publish, trainer, findings, summary, moment)
        run.guard.run(trainer, publish, "show a measurement")
        if not moment.is_baseline:
            self._log_overhead(trainer, began, moment.logged_step)
        run.clock.last = time.perf_counter() - began
        self._act(trainer, moment)
        run.guard.tell(trainer)

    def _remember(self, trainer: Trainer, measurement: Measurement, summary: Mapping[str, float]) -> None:
        run, diagnosis = self._run, self._run.diagnosis
        before = run.history[-1].flags if len(run.history) else {}
        when = f"After {measurement.step} steps (epoch {measurement.epoch})"
        is_judged = {trigger.name for trigger in self.triggers} - set(run.unjudged)
        is_first = not len(run.history)
        run.risen = run.events.note(when, diagnosis, before, measurement.layers, is_judged, is_first=is_first)
        run.measurement = measurement.judged(
            dict(summary), diagnosis.by_trigger, diagnosis.fired, diagnosis.layers_from_start
        )
        run.history.append(run.measurement, run.findings)

    def _publish(self, trainer: Trainer, findings: M, summary: Mapping[str, float], moment: Moment) -> None:
        run = self._run
        unexpected = [skip for skip in findings.skipped if skip.reason in UNEXPECTED]
        for reason in dict.fromkeys(skip.reason for skip in unexpected):
            causes = {f"{skip.name} {skip.reason}": skip for skip in unexpected if skip.reason == reason}
            run.guard.warn_of_several(trainer, causes, about_skips)
        view = self._view(findings)
        if not trainer.is_global_zero:
            return
        if view.category:
            charts = [*([flagged_layers()] if self.triggers else []), *view.charts]
            run.category = Category(self.GROUP, self.log_key_prefix, view.category, charts)
            run.has_new_charts = self.panels
        publisher = self._publisher(trainer, run.guard, moment.logged_step)
        if moment.is_baseline:
            publisher.say_what_is_left_out()
        publisher.scalars(summary, view, flag_scalars(self.triggers, run.diagnosis, view.layers))
        is_kept = len(run.history) > 0 and run.history[-1] is run.measurement
        if trainer.loggers and is_kept and not getattr(trainer, "fast_dev_run", False):
            for name, write in view.files.items():
                trouble: str | None = run.guard.run(trainer, write, f"write `{name}`")
                if trouble:
                    run.guard.warn_once(trainer, f"file {name}", trouble)
        if self.panels:
            self._draw(trainer, publisher, view.pictures, moment)
        run.clock.spent += publisher.seconds_to_come

    # ── Other tasks

    @override
    def _publisher(self, trainer: Trainer, guard: Guard, step: int) -> Publisher:
        return Publisher(trainer, guard, self.GROUP, self.log_key_prefix, step)

    @override
    def _new_run(self) -> Run[M]:
        return Run(Guard(type(self).__name__, self.on_error), History(self.max_history, self.KEPT))

    @override
    def _try_out(self, trainer: Trainer, pl_module: LightningModule) -> object:
        return self._snapshot(trainer, pl_module)

    @override
    def _lay_out(self, trainer: Trainer) -> None:
        """Lay out the charts of all monitors, if those of this one are new."""
        if not self._run.has_new_charts or not trainer.is_global_zero:
            return
        self._run.has_new_charts = False
        monitors = [cb for cb in callbacks(trainer) if isinstance(cb, Monitor) and cb.panels]
        categories = [cb._run.category for cb in monitors if cb._run.category is not None]
        if categories and categories != monitors[0]._run.laid_out:
            monitors[0]._run.laid_out = categories
            self._publisher(trainer, self._run.guard, 0).layout(categories)
