"""`SpectralEarlyStopping`: stop training on the flags that monitors raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError
from lightning_ww.callbacks._monitor.event_file import EventFile
from lightning_ww.callbacks._monitor.guard import Guard
from lightning_ww.callbacks._monitor.improvement import Improvement, Mode, checked
from lightning_ww.callbacks._monitor.lent_triggers import LentTriggers, is_monitor, monitors_with_triggers
from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer, callbacks, from_all, inform, warn
from lightning_ww.callbacks._monitor.restoring import Restoring
from lightning_ww.callbacks._monitor.resumable import Resumable
from lightning_ww.callbacks._monitor.stop import Stop
from lightning_ww.callbacks._monitor.triggers import are_equal
from lightning_ww.triggers.named import NAMED
from lightning_ww.triggers.trigger import Trigger

if TYPE_CHECKING:
    from lightning_ww.history import Measurement


class SpectralStoppingReason(str, Enum):
    """The reason why `SpectralEarlyStopping` stopped."""

    NOT_STOPPED = "not_stopped"
    TRIGGER = "trigger"  # a trigger fired at `patience` measurements in a row
    NONFINITE = "nonfinite"  # a weight is NaN or infinite


class SpectralEarlyStopping(Resumable):
    """Stop when a trigger of a spectral monitor fires at several measurements in a row.

    It needs a monitor, such as `WeightSpectrumMonitor`, among the Trainer's callbacks; their order does not matter.

    **Logged only**, when it stops: ``flags/stop_reason`` (text). With a logger, ``events.jsonl`` in its directory has a line
    with the event ``"stop"``: time, step, trigger, layers, evidence, meaning and lever. Loggers that take alerts (W&B, Comet)
    get one. Checkpoints that are saved from then on have the reason in this callback's state, under ``stopped``.

    Choose the triggers with care. `rank_collapse` is often harmless: a layer of few effective directions may generalize well.
    `correlation_trap` shows large steps rather than overfitting, and late. Together they stopped 2 of 80 healthy runs; no
    trigger is a judge of overfitting, which validation loss is (`docs/triggers.md`).

    Args:
        stop_on: Triggers, by name (``"rank_collapse"``, ``"plateau"``) or as objects (``RankCollapse(enter=0.6)``, or your
            own). An object takes the place of each monitor's default trigger of equal name. If no monitor raises it, the
            first one that measures what it needs does. After the fit, the monitors have their own triggers back. Default:
            ``()``: training never stops, and a message says once where it would have stopped.
        patience: The number of consecutive measurements at which a trigger must fire to stop training. The measurement at
            the start of a fit does not count, nor does a condition that holds since then and has not got clearly worse, and
            a measurement at which it does not fire, or fails, resets the count.
            `nonfinite` stops at once. Default: ``3``: a spectrum changes slowly, and a single odd measurement is no reason
            to stop.
        min_epochs: The number of epochs before which only `nonfinite` stops training. Default: ``5``: in the first epochs
            spectra change fast.
        require_metric: A key of `trainer.callback_metrics`, such as ``"val_loss"``. Then training stops only if that metric,
            too, was no better than its best value at ``patience`` measurements in a row. `nonfinite` stops at once
            nevertheless. Without such a metric there is one warning, and nothing else stops. Default: ``None``.
        mode: Whether a smaller (``"min"``) or a larger (``"max"``) value of that metric is better. Default: ``"min"``.
        min_delta: The change of that metric that has to be exceeded by an improvement. Default: ``0``.
        verbose: Whether a message says why training stops. Default: ``True``.

    Attributes:
        stopped_epoch: The epoch in which it stopped, or ``-1``.
        stopping_reason: A `SpectralStoppingReason`.
        stopping_reason_message: The reason as a sentence, or ``None``.

    Raises:
        ArgumentError: At construction, if an argument is out of its domain; in `setup`, if no monitor among the Trainer's
            callbacks raises a trigger of ``stop_on``. It is a `ValueError`.

    Example:
        >>> from lightning_ww.callbacks import WeightSpectrumMonitor
        >>> callbacks = [WeightSpectrumMonitor(), SpectralEarlyStopping(stop_on=["rank_collapse"], patience=3)]
    """

    def __init__(
        self,
        stop_on: str | Trigger | Sequence[str | Trigger] = (),
        patience: int = 3,
        *,
        min_epochs: int = 5,
        require_metric: str | None = None,
        mode: Mode = "min",
        min_delta: float = 0.0,
        verbose: bool = True,
    ) -> None:
        super().__init__()
        call = type(self).__name__
        several = [stop_on] if isinstance(stop_on, str | Trigger) else stop_on
        if not isinstance(several, Sequence) or not all(isinstance(given, str | Trigger) for given in several):
            raise _checks.unfit(call, "stop_on", stop_on, "a trigger, its name, or a list of those")
        self.stop_on = tuple(given if isinstance(given, str) else given.name for given in several)
        self._named = tuple(given for given in several if isinstance(given, str))
        self._own = tuple(given for given in several if isinstance(given, Trigger))
        self._lent = LentTriggers()
        self._file, self._guard = EventFile(None), Guard(call, "warn")
        self.patience = _checks.count(call, "patience", patience, least=1)
        self.min_epochs = _checks.count(call, "min_epochs", min_epochs, least=0)
        self.require_metric, self.mode, self.min_delta = checked(call, require_metric, mode, min_delta)
        self.verbose = _checks.instance(call, "verbose", verbose, bool)
        self._reset()

    def _reset(self) -> None:
        self.stopped_epoch = -1
        self.stopping_reason = SpectralStoppingReason.NOT_STOPPED
        self.stopping_reason_message: str | None = None
        self._counts: dict[str, int] = {}  # measurements in a row at which a trigger fired, by monitor and trigger
        self._has_counted = False  # whether a measurement was counted in this fit
        self._has_stopped = False
        self._has_reported = False
        self._attempts: list[int] = []  # measurements begun before the last look, by monitor
        name = self.require_metric
        self._required = None if name is None else Improvement(name, self.mode, self.min_delta)
        self._counted: dict[str, int] = {}  # number of the last measurement that was counted, by monitor

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        for trigger in self._own:
            self._lent.lend(trainer, trigger, trigger, type(self).__name__)
        raised = {trigger.name for monitor in monitors_with_triggers(trainer) for trigger in monitor.triggers}
        for name in self._named:
            if name not in raised and name in NAMED:
                self._lent.lend(trainer, NAMED[name](), name, type(self).__name__)
        monitors = monitors_with_triggers(trainer)
        if not monitors and any(is_monitor(callback) for callback in callbacks(trainer)):
            raise ArgumentError(
                "`SpectralEarlyStopping` acts on the flags of a monitor, and no monitor of this Trainer has triggers: give "
                "it `triggers=[...]`, or add `WeightSpectrumMonitor()` to `Trainer(callbacks=[...])`."
            )
        if not monitors:
            raise ArgumentError(
                "`SpectralEarlyStopping` acts on the flags of a monitor, and this Trainer has none: add "
                "`WeightSpectrumMonitor()` to `Trainer(callbacks=[...])`."
            )
        known = list(dict.fromkeys(trigger.name for monitor in monitors for trigger in monitor.triggers))
        for name in self.stop_on:
            if name not in known:
                raise ArgumentError(
                    f"`SpectralEarlyStopping(stop_on=[{name!r}])`: no monitor of this Trainer raises it. "
                    f"Raised are: {', '.join(known)}. By name there are also: {', '.join(NAMED)}."
                )

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._lent.take_back()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._lent.take_back()  # Lightning calls no `teardown` after an error

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._file = EventFile.of(trainer)
        is_new, state = self._begin(trainer, pl_module)
        counts, counted, required = self._counts, self._counted, self._required
        self._reset()
        if state is not None:
            restoring = Restoring(state)
            restoring.part("counts", self._load_counts)
            restoring.part("counted", self._load_counted)
            if "stopped" in state:
                restoring.part("stopped", dict)  # of the fit that stopped, not of this one
            if "required" in state and self._required is not None:
                restoring.part("required", self._required.load_state_dict)
            for said in restoring.finish():
                warn(trainer, f"`{type(self).__name__}` {said}")
        elif not is_new:
            self._counts, self._counted, self._required = counts, counted, required

    def _load_counts(self, counts: Mapping[str, int]) -> None:
        self._counts = {str(name): int(count) for name, count in counts.items()}

    def _load_counted(self, counted: Mapping[str, int]) -> None:
        self._counted = {str(name): int(number) for name, number in counted.items()}

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for monitor in monitors_with_triggers(trainer):  # skip measurements from before this callback was added
            last, key = monitor.history.next_number - 1, monitor.state_key
            if self._counted.setdefault(key, last) > last:  # the monitor has started a new history
                self._counted[key] = last
                self._counts = {name: count for name, count in self._counts.items() if not name.startswith(f"{key} ")}

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer, epochs_done=trainer.current_epoch + 1)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # for measurements between steps, or after this callback's turn at the end of an epoch; all processes agree
        attempts = [getattr(monitor, "attempts", len(monitor.history)) for monitor in monitors_with_triggers(trainer)]
        if attempts != self._attempts:
            self._attempts = attempts
            self._check(trainer, epochs_done=trainer.current_epoch)

    def _check(self, trainer: Trainer, *, epochs_done: int) -> None:
        """Count the new measurements, and stop all ranks if there is a reason to stop on any rank."""
        self._go_on()
        if getattr(trainer, "fast_dev_run", False) or self._has_stopped:
            return
        unseen = [
            (monitor, measurement)
            for monitor in monitors_with_triggers(trainer)
            for measurement in self._unseen(monitor)
        ]
        for monitor, measurement in unseen:
            self._count(monitor, measurement)
            self._has_counted = True
        if unseen and self._required is not None and (missing := self._required.look(trainer.callback_metrics)):
            warn(trainer, f"`SpectralEarlyStopping(require_metric={self.require_metric!r})` {missing}")
        # restored counts must not stop a resumed run before it has measured
        due = self._due(trainer, epochs_done) if self._has_counted else None
        if not self.stop_on:
            if due is not None and not self._has_reported:
                self._has_reported = True
                inform(trainer, f"{due.message} Training goes on: `stop_on` is empty.")
            return
        if trainer.strategy.reduce_boolean_decision(due is not None, all=False):
            stop: Stop = next(filter(None, from_all(trainer, due)))  # of any process
            is_lost = stop.flag.trigger == "nonfinite"
            trainer.should_stop = self._has_stopped = True
            self.stopped_epoch = trainer.current_epoch
            self.stopping_reason = SpectralStoppingReason.NONFINITE if is_lost else SpectralStoppingReason.TRIGGER
            self.stopping_reason_message = stop.message
            if self.verbose:
                inform(trainer, stop.message)
            stop.tell(trainer, self._guard, self._file)

    def _unseen(self, monitor: Any) -> list[Measurement]:
        """The measurements that were not counted yet; those at the start of a fit never count."""
        seen = self._counted.get(monitor.state_key, -1)
        return [past for past in monitor.history if past.number > seen and not past.is_baseline]

    def _count(self, monitor: Any, measurement: Measurement) -> None:
        self._counted[monitor.state_key] = measurement.number
        for trigger in monitor.triggers:
            key = f"{monitor.state_key} {trigger.name}"
            self._counts[key] = self._counts.get(key, 0) + 1 if trigger.name in measurement.fired else 0

    def _due(self, trainer: Trainer, epochs_done: int) -> Stop | None:
        """The reason to stop now, or ``None``."""
        # set before the Trainer's own minimum, `should_stop` would stop training later, whatever happens until then
        may_stop = getattr(trainer.fit_loop, "_can_stop_early", True)
        for monitor in monitors_with_triggers(trainer):
            for trigger in monitor.triggers:
                if self.stop_on and not self._acts_on(trigger):
                    continue
                count = self._counts.get(f"{monitor.state_key} {trigger.name}", 0)
                if count and trigger.acts_at_once:
                    return self._stop(monitor, trigger, count)
                has_consent = self._required is None or self._required.num_stale >= self.patience
                if count >= self.patience and has_consent and epochs_done >= self.min_epochs and may_stop:
                    return self._stop(monitor, trigger, count)
        return None

    def _stop(self, monitor: Any, trigger: Trigger, count: int) -> Stop:
        evidence = [flag.evidence for flag in monitor.diagnosis.flags if flag.trigger == trigger.name]
        message = self._sentence(monitor, trigger.name, count)
        return Stop.of(message, trigger, monitor.history[-1], "; ".join(evidence))

    def _acts_on(self, trigger: Trigger) -> bool:
        return trigger.name in self._named or any(are_equal(trigger, own) for own in self._own)

    def _sentence(self, monitor: Any, trigger: str, count: int) -> str:
        measured = monitor.history[-1]
        layers = ", ".join(f"`{name}`" for name in measured.flags.get(trigger, ()) if name)
        times = "1 measurement" if count == 1 else f"{count} measurements in a row"
        where = f", in {layers}" if layers else ""
        said = f"`SpectralEarlyStopping`: `{trigger}` fired at {times}, the last at step {measured.step}{where}."
        said += "" if self._required is None else self._required.sentence
        left_out = getattr(monitor, "num_left_out", 0)
        return f"{said} `max_overhead` left out {left_out} measurements of this run." if left_out else said

    def _stopped(self) -> dict[str, Any]:
        return {
            "epoch": self.stopped_epoch,
            "reason": self.stopping_reason.value,
            "message": self.stopping_reason_message,
        }

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(stop_on=self.stop_on, patience=self.patience)

    @override
    def _state(self) -> dict[str, Any]:
        return {
            "counts": dict(self._counts),
            "counted": dict(self._counted),
            **({} if self.stopping_reason_message is None else {"stopped": self._stopped()}),
            **({} if self._required is None else {"required": self._required.state_dict()}),
        }
