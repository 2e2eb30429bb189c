"""What the monitors have in common: when they measure, what it costs, who hears of it, what is remembered."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from typing_extensions import override

from lightning_ww import _checks
from lightning_ww.callbacks._monitor import loggers as _publish
from lightning_ww.callbacks._monitor.guard import Guard
from lightning_ww.callbacks._monitor.layout import Curves
from lightning_ww.callbacks._monitor.lightning import CallbackBase, LightningModule, Trainer, callbacks, warn
from lightning_ww.callbacks._monitor.schedule import Schedule, logged_step
from lightning_ww.history import History, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

R = TypeVar("R", bound=Record)


class MonitorBase(CallbackBase, Generic[R]):
    """A callback that measures on a schedule, publishes what it found, and never disturbs the run.

    A subclass says what is measured (`_analyse`) and what becomes of it (`_keep`).
    """

    GROUP: str
    """What its keys begin with."""

    RECORD: type[R]
    """What it remembers of a measurement."""

    panels: bool
    """Whether it draws."""

    def __init__(
        self,
        every_n_epochs: int | None,
        every_n_train_steps: int | None,
        seed: int,
        log_key_prefix: str,
        max_history: int,
        on_error: Literal["warn", "raise"],
    ) -> None:
        super().__init__()
        call = type(self).__name__
        self._schedule = Schedule.checked(call, every_n_epochs, every_n_train_steps)
        self.every_n_epochs = every_n_epochs
        self.every_n_train_steps = every_n_train_steps
        self.seed = _checks.count(call, "seed", seed, least=0)
        self.log_key_prefix = _checks.instance(call, "log_key_prefix", log_key_prefix, str)
        self.max_history = _checks.count(call, "max_history", max_history, least=1)
        self.on_error = _checks.choice(call, "on_error", on_error, ("warn", "raise"))

    def _reset(self) -> None:
        """Forget the run."""
        self.measurement: R | None = None
        self.history: History[R] = History(self.max_history, self.RECORD)
        self._held: dict[str, float] = {}
        self._guard = Guard(type(self).__name__, self.on_error)
        self._spent = 0.0
        self._began = 0.0
        self._last_step: int | None = None
        self._last_logged = 0
        self._is_training = False
        self._fatal: tuple[type[Exception], ...] = ()  # errors that are raised whatever `on_error` says

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, state: Mapping[str, Any] | None) -> None:
        """Look at the model before the first step; ``state`` is that of the run that is resumed.

        Raises:
            ValueError: If the arguments do not fit the model.
        """
        raise NotImplementedError

    def _analyse(
        self, trainer: Trainer, pl_module: LightningModule, *, is_baseline: bool
    ) -> tuple[Any, dict[str, float]] | None:
        """Measure: what `_keep` needs, and the summary, by key; ``None`` if there is nothing to be had, and it was said."""
        raise NotImplementedError

    def _keep(
        self, trainer: Trainer, found: Any, summary: Mapping[str, float], *, is_baseline: bool, step: int
    ) -> None:
        """Remember what was found, and log it at that step; ``summary`` is what has a value now."""
        raise NotImplementedError

    def _last_pictures(self) -> Mapping[str, Callable[[], Any]]:
        """What is still to be drawn when training ends, by tag: how each is drawn."""
        raise NotImplementedError

    def _bands(self) -> tuple[str, ...]:
        """Metrics whose quantiles over the layers are logged."""
        return ()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        twins = [
            cb for cb in callbacks(trainer) if isinstance(cb, type(self)) and cb.log_key_prefix == self.log_key_prefix
        ]
        if stage == "fit" and len(twins) > 1 and twins[0] is self:
            warn(
                trainer,
                f"{len(twins)} `{type(self).__name__}`s of this Trainer log under the same keys, and overwrite each other's: "
                "give all but one a `log_key_prefix`.",
            )

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if getattr(trainer, "barebones", False):
            warn(trainer, f"`{type(self).__name__}` does nothing under `Trainer(barebones=True)`.")
            return
        is_new, state = self._begin(trainer, pl_module)
        if is_new or state is not None:
            self._reset()
        if state is not None:
            self._take_up(state)
        self._prepare(trainer, pl_module, state)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()
        self._spent = 0.0
        self._is_training = True
        monitors = [cb for cb in callbacks(trainer) if isinstance(cb, MonitorBase) and cb.panels]
        if monitors and monitors[0] is self and trainer.is_global_zero:  # one layout for all
            curves = [Curves(cb.GROUP, cb.log_key_prefix, cb._bands()) for cb in monitors]
            _publish.overview(trainer, self._guard, curves)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._schedule.due_after_batch(trainer, self._last_step):
            self._measure(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._schedule.due_after_epoch(trainer, self._last_step):
            self._measure(trainer, pl_module, after_epoch=True)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw_the_rest(trainer, self._guard)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # the error to be raised is the user's
        self._draw_the_rest(trainer, Guard(type(self).__name__, "warn", self._guard.state_dict()))

    def _draw_the_rest(self, trainer: Trainer, guard: Guard) -> None:
        was_training, self._is_training = self._is_training, False
        if was_training and self.panels and self.measurement is not None and trainer.is_global_zero:
            _publish.pictures(trainer, guard, self._last_logged, self.log_key_prefix, self._last_pictures)

    def _show(self, trainer: Trainer, due: Callable[[], Mapping[str, Callable[[], Any]]], step: int) -> None:
        """Draw what is due, and log it."""
        if self.panels:
            _publish.pictures(trainer, self._guard, step, self.log_key_prefix, due)

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, *, is_baseline: bool = False, after_epoch: bool = False
    ) -> None:
        """Measure, publish, remember."""
        if getattr(trainer, "barebones", False):
            return
        self._go_on()
        self._last_step = trainer.global_step
        with self._timed() as began:
            found = self._guard.run(
                trainer, lambda: self._analyse(trainer, pl_module, is_baseline=is_baseline), fatal=self._fatal
            )
            # Every rank takes part, also one that failed; one failure is everybody's, so that all remember the same.
            if not trainer.strategy.reduce_boolean_decision(found is not None, all=True) or found is None:
                return
            now = time.perf_counter()
            summary = found[1] | {f"{self.GROUP}/seconds": now - began}
            if not is_baseline:
                summary[f"{self.GROUP}/overhead"] = (self._spent + now - began) / (now - self._began)
            # Equal on all ranks; where a mean has no value now, the last one is held.
            summary = trainer.strategy.broadcast(summary)
            self._held |= summary
            _publish.to_callback_metrics(trainer, self._prefixed(self._held))
            step = logged_step(trainer, after_epoch=after_epoch)
            self._guard.run(trainer, lambda: self._keep(trainer, found[0], summary, is_baseline=is_baseline, step=step))
            self._last_logged = step

    @contextmanager
    def _timed(self) -> Iterator[float]:
        """When it began; what is done within counts as overhead."""
        began = time.perf_counter()
        try:
            yield began
        finally:
            self._spent += time.perf_counter() - began

    def _prefixed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {self.log_key_prefix + key: value for key, value in values.items()}

    @override
    def _state(self) -> dict[str, Any]:
        return {
            "history": self.history.state_dict(),
            "held": dict(self._held),
            "warned": self._guard.state_dict(),
        }

    def _take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.history.load_state_dict(state["history"])
        self._held = dict(state["held"])
        self._guard = Guard(type(self).__name__, self.on_error, state["warned"])
