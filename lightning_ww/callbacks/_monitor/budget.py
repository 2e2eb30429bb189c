"""`Bounded`: the share of a run that a monitor takes, and the measurements that `max_overhead` leaves out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lightning_ww.callbacks._monitor.clock import Clock, may_draw, may_measure
from lightning_ww.callbacks._monitor.lightning import callbacks
from lightning_ww.callbacks._monitor.publisher import to_callback_metrics
from lightning_ww.callbacks._monitor.sentences import SHORT, about_left_out, about_share, about_time, schedule_lever
from lightning_ww.callbacks._monitor.view import View

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.guard import Guard
    from lightning_ww.callbacks._monitor.lightning import Trainer
    from lightning_ww.callbacks._monitor.publisher import Publisher
    from lightning_ww.callbacks._monitor.run import Run

DEAR, JUDGED_AT = 1 / 4, 10
"""The share of a run above which there is a warning, and the measurement at which it is judged."""


class Bounded(ABC):
    """A monitor that knows what it costs."""

    GROUP: ClassVar[str]
    """The group that its keys begin with."""

    log_key_prefix: str
    max_overhead: float | None
    every_n_epochs: int | None
    every_n_train_steps: int | None
    panels: bool
    _run: Run[Any]

    @property
    def num_left_out(self) -> int:
        """The number of measurements that `max_overhead` left out."""
        return self._run.left_out

    @abstractmethod
    def _publisher(self, trainer: Trainer, guard: Guard, step: int) -> Publisher:
        """The loggers of a Trainer at one step."""

    def _clocks(self, trainer: Trainer) -> list[Clock]:
        """The clocks of all monitors of this Trainer."""
        return [cb._run.clock for cb in callbacks(trainer) if isinstance(cb, Bounded)]

    def _may_draw(self, trainer: Trainer, seconds: float) -> bool:
        """Tell whether there is time for a picture that takes so many seconds."""
        return may_draw(self._clocks(trainer), seconds, self.max_overhead)

    def _leaves_out(self, trainer: Trainer) -> bool:
        """Tell whether `max_overhead` leaves out the measurement that is due, and count it; a collective call."""
        run = self._run
        if self._fits(trainer, run.clock.last):
            return False
        run.left_out += 1
        run.last_step = trainer.global_step
        said = about_left_out(self.max_overhead or 0.0, run.clock.last, trainer.global_step)
        run.guard.warn_once(trainer, "left out", said)
        return True

    def _log_overhead(self, trainer: Trainer, began: float, step: int) -> None:
        """Log the share of the fit spent so far, which includes the measurement that began then, and its logging."""
        run = self._run
        overhead = {"overhead": float(trainer.strategy.broadcast(run.clock.share(began)))}
        if self.max_overhead is not None:
            overhead["num_left_out"] = float(run.left_out)
        run.held |= overhead
        to_callback_metrics(trainer, overhead, self.GROUP, self.log_key_prefix)
        if run.measurement is not None:
            run.measurement = run.history.amend(run.measurement, overhead)
        if trainer.is_global_zero:
            self._publisher(trainer, run.guard, step).scalars(overhead, View(), {})

    def _fits(self, trainer: Trainer, seconds: float) -> bool:
        """Tell whether `max_overhead` leaves time for a task that takes so many seconds; a collective call."""
        if self.max_overhead is None:
            return True
        fits = not seconds or may_measure(self._clocks(trainer), seconds, self.max_overhead)
        return bool(trainer.strategy.broadcast(fits))

    def _is_left_out(self, trainer: Trainer) -> bool:
        """Tell whether the current weights were not measured because of `max_overhead`."""
        last = self._run.measurement
        return self._run.left_out > 0 and last is not None and last.step != trainer.global_step

    def _say_if_slow(self, trainer: Trainer) -> None:
        """Warn once if a measurement took longer than the training of its epoch, or if all take much of the run."""
        run = self._run
        last, trained, advice = run.measurement, run.clock.trained_in_epoch, self._faster(trainer)
        if last is not None and last.epoch == trainer.current_epoch and advice:
            seconds = last.summary["seconds"]
            if seconds > max(trained, SHORT):
                lever = None if last.is_baseline else schedule_lever(self.every_n_epochs, self.every_n_train_steps)
                run.guard.warn_once(trainer, "slow", about_time(seconds, trained, lever, advice))
        monitors = [cb for cb in callbacks(trainer) if isinstance(cb, Bounded)]
        if run.attempts >= JUDGED_AT and not any(cb._run.guard.has_warned("slow") for cb in monitors):
            max(monitors, key=lambda cb: cb._run.clock.spent)._say_if_dear(trainer, monitors)

    def _say_if_dear(self, trainer: Trainer, monitors: Sequence[Bounded]) -> None:
        """Warn once if all monitors take more than a quarter of the run, with what would help with this one."""
        clock = self._run.clock
        whole, spent = clock.elapsed, sum(cb._run.clock.spent for cb in monitors)
        if self.max_overhead is None and whole > 0 and spent / whole > DEAR:
            lever = schedule_lever(self.every_n_epochs, self.every_n_train_steps)
            said = about_share(spent / whole, clock.spent / whole, clock.drawn / whole if self.panels else 0.0, lever)
            self._run.guard.warn_once(trainer, "slow", said)

    def _faster(self, trainer: Trainer) -> list[str]:
        """What would make measurements faster and is not set yet; none: no warning about a slow one."""
        return []
