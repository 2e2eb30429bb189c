"""`LooksAround`: the loss along directions of the curvature, at measurements and at the end of a fit."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lightning_ww.callbacks._curvature.pictures import landscape_picture
from lightning_ww.callbacks._curvature.reading import CurvatureReader
from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer
from lightning_ww.callbacks._monitor.schedule import logged_step
from lightning_ww.callbacks._monitor.scheduled import Scheduled

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.guard import Guard
    from lightning_ww.callbacks._monitor.publisher import Publisher
    from lightning_ww.callbacks._monitor.run import Run
    from lightning_ww.callbacks._monitor.view import Picture
    from lightning_ww.curvature.landscape import Landscape
    from lightning_ww.history import Moment


class LooksAround(Scheduled, ABC):
    """A monitor of the curvature that evaluates the loss along its directions, if that is asked for."""

    num_steps: int
    panels: bool
    _run: Run[Any]

    if TYPE_CHECKING:  # the monitor's own

        def _publisher(self, trainer: Trainer, guard: Guard, step: int) -> Publisher: ...

        def _draw(
            self, trainer: Trainer, publisher: Publisher, pictures: Sequence[Picture], moment: Moment
        ) -> None: ...

    @property
    def loss_landscape(self) -> Landscape | None:
        """The latest landscape, or ``None``."""
        memory = self._run.memory
        return memory.landscapes.latest if isinstance(memory, CurvatureReader) else None

    def _look_around(self, trainer: Trainer, pl_module: LightningModule, number: int | None) -> None:
        """Evaluate the loss along directions, if it is due at the measurement of this number; ``None``: at the end."""
        run, reader = self._run, self._run.memory
        if isinstance(reader, CurvatureReader) and run.batches is not None and reader.landscapes.is_due(number):
            batches = getattr(run.batches, "batches", [])
            look = partial(reader.look_around, trainer, pl_module, batches, self.num_steps)
            run.guard.run(trainer, look, "look along the curvature")
            if why := reader.landscapes.trouble:
                said = (
                    f"shows no validation loss along the curvature: the training loss cannot be evaluated there. {why}"
                )
                run.guard.warn_once(trainer, "landscape", said)

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        memory = self._run.memory
        if isinstance(memory, CurvatureReader) and not self._run.is_off:
            keep = partial(memory.landscapes.keep, batch, batch_idx)
            self._run.guard.run(trainer, keep, "keep a validation batch")

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run = self._run
        if isinstance(run.memory, CurvatureReader) and run.measurement is not None and not run.is_off:
            with run.clock.spending():
                self._look_around(trainer, pl_module, None)
            found = run.memory.landscapes.shown()
            if self.panels and found is not None and trainer.is_global_zero:
                publisher = self._publisher(trainer, run.guard, logged_step(trainer, after_epoch=True))
                self._draw(trainer, publisher, [landscape_picture(found)], run.measurement.moment)
        super().on_train_end(trainer, pl_module)
