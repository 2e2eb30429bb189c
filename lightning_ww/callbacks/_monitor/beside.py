"""`Beside`: what a monitor leaves to a process beside training, which all monitors of a Trainer share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from lightning_ww._memory import available_bytes
from lightning_ww.callbacks._monitor.budget import Bounded
from lightning_ww.callbacks._monitor.lightning import callbacks, training_loaders
from lightning_ww.callbacks._monitor.worker import Worker, usable_cores

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.guard import Guard
    from lightning_ww.callbacks._monitor.lightning import Trainer
    from lightning_ww.callbacks._monitor.publisher import Publisher
    from lightning_ww.callbacks._monitor.run import Run
    from lightning_ww.callbacks._monitor.view import Picture
    from lightning_ww.history import Moment

Execution = Literal["auto", "sync", "background"]

STARTED_AFTER = 10.0
"""The seconds of a fit after which the process is started: shorter fits end before it could help."""

MEMORY = 2_000_000_000
"""The bytes of memory that have to be left to start it: four times what it takes."""


class Beside(Bounded):
    """A monitor that draws in a process beside training, where there is a core for it."""

    execution: Execution
    _run: Run[Any]

    @abstractmethod
    def _publisher(self, trainer: Trainer, guard: Guard, step: int) -> Publisher:
        """The loggers of a Trainer at one step."""

    def _worker(self, trainer: Trainer) -> Worker | None:
        """The process beside training, if this monitor uses it; it belongs to the first monitor of the Trainer."""
        if self.execution == "sync" or getattr(trainer, "fast_dev_run", False):
            return None
        home = _monitors(trainer)[0]._run
        is_worth_it = self.execution == "background" or self._run.clock.elapsed > STARTED_AFTER
        if home.worker is None and not home.has_lost_worker and is_worth_it and has_room(trainer):
            home.worker = Worker()
        if home.worker is not None and home.worker.is_lost:
            home.worker.close()
            home.worker, home.has_lost_worker = None, True
        return home.worker

    def _collect(self, trainer: Trainer) -> None:
        """Log the pictures that have come from the process."""
        run = self._run
        if run.pictures.have_come and run.measurement is not None:
            run.pictures.collect(self._publisher(trainer, run.guard, run.measurement.moment.logged_step), run.clock)

    def _draw(self, trainer: Trainer, publisher: Publisher, pictures: Sequence[Picture], moment: Moment) -> None:
        """Draw the pictures of a measurement that are due, here or beside training."""
        run = self._run
        self._collect(trainer)
        may_draw = partial(self._may_draw, trainer)
        run.pictures.take(publisher, pictures, moment, run.clock, may_draw, self._worker(trainer))

    def _draw_the_rest(self, trainer: Trainer, guard: Guard) -> None:
        """Draw the pictures that waited for the end of the fit, and end the process."""
        run = self._run
        was_training, run.is_training = run.is_training, False
        if was_training and self.panels and run.measurement is not None and trainer.is_global_zero:
            publisher = self._publisher(trainer, guard, run.measurement.moment.logged_step)
            run.pictures.finish(publisher, run.clock, self._worker(trainer))
        self._close_worker(trainer)

    def _close_worker(self, trainer: Trainer) -> None:
        """End the process if no monitor of this Trainer is in a fit any more."""
        monitors = _monitors(trainer)
        if not any(monitor._run.is_training for monitor in monitors):
            for monitor in monitors:
                if (worker := monitor._run.worker) is not None:
                    monitor._run.worker = None
                    worker.close()


def has_room(trainer: Trainer) -> bool:
    """Tell whether training leaves a core and memory for another process.

    On the CPU, torch's threads of each process and the loaders' workers all have work; beside an accelerator, only the
    processes themselves. A process that shares a core with torch's threads makes all of them wait.
    """
    each = 1
    if trainer.strategy.root_device.type == "cpu":
        each = torch.get_num_threads() + sum(getattr(loader, "num_workers", 0) for loader in training_loaders(trainer))
    processes = max(1, trainer.num_devices)
    if usable_cores() <= each * processes:
        return False
    left = available_bytes(torch.device("cpu"))
    return left is None or left > MEMORY * processes


def _monitors(trainer: Trainer) -> list[Beside]:
    return [cb for cb in callbacks(trainer) if isinstance(cb, Beside)]
