"""The schedule of measurements, and the step at which they are logged.

A monitor measures at the start of training; then in `on_train_batch_end`, after an epoch's last batch or every n optimizer
steps; and in `on_train_epoch_end` if the epoch was cut short. Every callback sees a value published in `on_train_batch_end`
within that epoch, whatever the order of callbacks and the validation schedule. A value published in `on_train_epoch_end`
comes too late for a check after validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import Trainer


@dataclass(frozen=True)
class Schedule:
    """A schedule: every n epochs, every n optimizer steps, or both."""

    every_n_epochs: int | None
    every_n_train_steps: int | None

    @classmethod
    def checked(cls, call: str, every_n_epochs: int | None, every_n_train_steps: int | None) -> Schedule:
        """Make a schedule from two arguments of the class ``call``.

        Raises:
            ArgumentError: If an argument is neither an integer of at least 1 nor ``None``, or both are ``None``.
        """
        _checks.optional_count(call, "every_n_epochs", every_n_epochs, least=1)
        _checks.optional_count(call, "every_n_train_steps", every_n_train_steps, least=1)
        if every_n_epochs is None and every_n_train_steps is None:
            raise ArgumentError(
                f"`{call}(every_n_epochs=None, every_n_train_steps=None)` would never measure: set one of the two."
            )
        return cls(every_n_epochs, every_n_train_steps)

    def due_after_batch(self, trainer: Trainer, last_step: int | None) -> bool:
        """Tell whether to measure now that a training batch has ended; ``last_step`` is the step of the last measurement."""
        if getattr(trainer, "fast_dev_run", False):  # once, whatever the schedule
            return bool(trainer.is_last_batch)
        if trainer.is_last_batch and self._epoch_is_due(trainer):
            return True
        n = self.every_n_train_steps
        # in steps of n, not at multiples of n: with several optimizers a batch may make several steps
        return n is not None and trainer.global_step // n != (last_step or 0) // n

    def may_be_due(self, trainer: Trainer, last_step: int | None) -> bool:
        """Tell, before an optimizer step, whether a measurement may follow this batch; never falsely no."""
        if getattr(trainer, "fast_dev_run", False):
            return True
        after = trainer.global_step + max(1, len(trainer.optimizers))  # the most steps of this batch, one each
        is_end = trainer.is_last_batch or 0 <= trainer.max_steps <= after
        if is_end and self._epoch_is_due(trainer):
            return True
        n = self.every_n_train_steps
        return n is not None and after // n != (last_step or 0) // n

    def due_after_epoch(self, trainer: Trainer, last_step: int | None) -> bool:
        """Tell whether an epoch ended without its last batch (`max_steps`, `should_stop`) and must still be measured."""
        return self._epoch_is_due(trainer) and trainer.global_step != last_step

    def _epoch_is_due(self, trainer: Trainer) -> bool:
        return self.every_n_epochs is not None and (trainer.current_epoch + 1) % self.every_n_epochs == 0


def logged_step(trainer: Trainer, *, after_epoch: bool = False) -> int:
    """The step on Lightning's own axis: batches that stepped, from 0. In `on_train_epoch_end` that is one ahead."""
    step = int(getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", trainer.global_step))
    return max(0, step - 1) if after_epoch else step
