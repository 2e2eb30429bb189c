"""What the processes of a run agree on before each goes on by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from lightning_ww._errors import LightningWWError
from lightning_ww.callbacks._monitor.guard import RefusedError
from lightning_ww.callbacks._monitor.lightning import told_by_any
from lightning_ww.callbacks._sandbox.loss import UnfitBatchError
from lightning_ww.curvature.operators import NotFiniteError

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import Trainer

T = TypeVar("T")


def on_all(trainer: Trainer, action: Callable[[], T]) -> T:
    """Run an action without collective calls; return its result if it succeeds on all processes, else raise on all."""
    error: Exception | None = None
    try:
        result = action()
    except Exception as failed:
        error = failed
    if trainer.world_size > 1:
        is_fine = trainer.strategy.reduce_boolean_decision(error is None, all=True)
        is_refused = trainer.strategy.reduce_boolean_decision(isinstance(error, RefusedError), all=False)
        is_own_unfit = isinstance(error, UnfitBatchError | NotFiniteError)
        is_unfit = trainer.strategy.reduce_boolean_decision(is_own_unfit, all=False)
        if not is_fine:  # an error of one kind in all
            told = told_by_any(trainer, "" if error is None else str(error))
            if is_refused:
                error = error if isinstance(error, RefusedError) else RefusedError(told)
            elif is_unfit:
                error = error if is_own_unfit else UnfitBatchError(told)
            else:
                error = error or LightningWWError(f"another process failed: {told}")
    if error is not None:
        raise error
    return result


def summed(trainer: Trainer, tensor: Tensor) -> Tensor:
    """The sum over all processes."""
    return torch.as_tensor(trainer.strategy.reduce(tensor, reduce_op="sum"))


def reached_by_any(trainer: Trainer, is_reached: list[bool]) -> list[bool]:
    """Tell of each parameter whether the loss depends on it in any process."""
    if trainer.world_size == 1:
        return is_reached
    device = trainer.strategy.root_device
    counts = summed(trainer, torch.tensor([float(one) for one in is_reached], device=device))
    return [bool(count > 0) for count in counts]
