"""`Following`: the numbers that a monitor follows between two measurements."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from lightning_ww.callbacks._monitor.budget import Bounded
from lightning_ww.callbacks._monitor.publisher import to_callback_metrics
from lightning_ww.callbacks._monitor.schedule import logged_step
from lightning_ww.callbacks._monitor.scheduled import Scheduled
from lightning_ww.callbacks._monitor.view import View

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer
    from lightning_ww.callbacks._monitor.run import Run


class Following(Bounded, Scheduled):
    """A monitor that may follow numbers."""

    _run: Run[Any]

    def _follow(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute and publish the numbers that are followed between two measurements, if it is time."""
        run, step = self._run, trainer.global_step
        between = run.between
        is_waiting = run.batches is not None and not run.batches.is_complete
        if between is None or run.is_off or is_waiting or step == run.last_step:
            return
        if step // between.every_n_steps == run.last_followed // between.every_n_steps:
            return
        run.last_followed = step
        if not self._fits(trainer, run.clock.followed):
            return
        with run.clock.spending() as began:
            follow = partial(self._or_off, trainer, partial(between.follow, trainer, pl_module))
            numbers = run.guard.run(trainer, follow, between.what)
            self._agree_to_be_off(trainer)
            if trainer.strategy.reduce_boolean_decision(numbers is not None, all=True) and numbers is not None:
                numbers = trainer.strategy.broadcast(numbers)
                run.held |= numbers
                to_callback_metrics(trainer, numbers, self.GROUP, self.log_key_prefix)
                if trainer.is_global_zero:
                    publisher = self._publisher(trainer, run.guard, logged_step(trainer))
                    publisher.scalars(numbers, View(), {})
        run.clock.followed = time.perf_counter() - began
