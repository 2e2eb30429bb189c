"""Callbacks of Lightning's that watch one of a monitor's numbers."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from lightning_ww.callbacks._monitor.lightning import callbacks

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import Trainer


def about_watchers(
    trainer: Trainer, ours: str, every_n_epochs: int | None, there: Collection[str] | None, *, comes_between: bool
) -> list[str]:
    """Sentences on callbacks that look at a monitor's numbers too often, or too early.

    Args:
        trainer: The Trainer.
        ours: The beginning of the monitor's keys.
        every_n_epochs: The number of epochs from one measurement to the next; ``None``: not by epochs.
        there: The numbers that are there from the start; ``None``: all.
        comes_between: Whether numbers come between two measurements, too.
    """
    said = [] if comes_between else impatient(trainer, ours, every_n_epochs)
    return said if there is None else [*said, *premature(trainer, ours, every_n_epochs, there)]


def impatient(trainer: Trainer, ours: str, every_n_epochs: int | None) -> list[str]:
    """A sentence on each `EarlyStopping` whose patience ends before the number that it watches is measured again.

    It looks at every epoch, and takes one without a measurement for one without improvement.

    Args:
        trainer: The Trainer.
        ours: The beginning of the monitor's keys.
        every_n_epochs: The number of epochs from one measurement to the next; ``None``: not by epochs.
    """
    said = []
    for callback in callbacks(trainer):
        key, patience = getattr(callback, "monitor", None), getattr(callback, "patience", None)
        is_early_stopping = hasattr(callback, "wait_count") and isinstance(patience, int)
        if is_early_stopping and str(key or "").startswith(ours) and (every_n_epochs or 1) > int(patience or 0):
            name = f"{type(callback).__name__}(monitor={key!r}, patience={patience})"
            enough = max(int(patience or 0), 1) * (every_n_epochs or 1)
            said.append(
                f"measures at every {every_n_epochs}th epoch, and `{name}` takes an epoch without a measurement for one "
                f"without improvement: it may stop before the next one. Set `patience={enough}`, or `every_n_epochs=1`."
            )
    return said


def premature(trainer: Trainer, ours: str, every_n_epochs: int | None, there: Collection[str]) -> list[str]:
    """A sentence on each `EarlyStopping` that may look at a number before its first value, which is an error of its own.

    Args:
        trainer: The Trainer.
        ours: The beginning of the monitor's keys.
        every_n_epochs: The number of epochs from one measurement to the next; ``None``: not by epochs.
        there: The numbers that are there from the start.
    """
    said = []
    is_in_time = every_n_epochs == 1 and getattr(trainer, "val_check_interval", 1.0) == 1.0
    for callback in callbacks(trainer):
        key = str(getattr(callback, "monitor", None) or "")
        looks = hasattr(callback, "wait_count") and getattr(callback, "strict", False)
        if looks and key.startswith(ours) and key.removeprefix(ours) not in there and not is_in_time:
            said.append(
                f"has its first `{key}` later than `{type(callback).__name__}` looks for it, which would end the run: "
                "pass `strict=False` to it."
            )
    return said
