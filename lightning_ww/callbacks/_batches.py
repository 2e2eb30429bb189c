"""The batches that the curvature is measured on: taken once, and kept, so that a curve moves because the weights did."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree

from lightning_ww.callbacks._quiet import quiet, seed_streams

if TYPE_CHECKING:
    from lightning_ww.callbacks._lightning import LightningModule, Trainer


@dataclass(frozen=True)
class CapturedBatch:
    """A copy of one batch, as `training_step` gets it."""

    batch: Any
    index: int  # in its epoch
    size: int  # length of its first tensor

    @classmethod
    def of(cls, batch: Any, index: int) -> CapturedBatch:
        """Copy a batch on its way through training."""
        sizes = [leaf.shape[0] for leaf in _pytree.tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim]
        return cls(_copied(batch), index, sizes[0] if sizes else 1)

    def fresh(self) -> Any:
        """A copy, since whoever gets it may change it."""
        return _copied(self.batch)


class KeptBatches:
    """So many batches, of those that pass or of the user's own data."""

    def __init__(self, wanted: int, data: Iterable[Any] | None, seed: int) -> None:
        self._wanted, self._data, self._seed = wanted, data, seed
        self.batches: list[CapturedBatch] = []
        self.is_complete = False

    def take(self, trainer: Trainer, pl_module: LightningModule, batch: Any, index: int) -> None:
        """Take a batch that passes; or those of the user's own data, all at once.

        Raises:
            ValueError: If the user's own data have fewer than wanted.
        """
        if self._data is None:
            self._join(batch, index)
        else:
            self._draw(trainer, pl_module, self._data)

    def close(self) -> str | None:
        """Make do with the batches of an epoch, if it had too few; that is returned in words."""
        if self.is_complete or not self.batches:
            return None
        self.is_complete = True
        return f"measures on {len(self.batches)} batches: an epoch has no more (`num_batches={self._wanted}`)."

    def _join(self, batch: Any, index: int) -> None:
        self.batches.append(CapturedBatch.of(batch, index))
        self.is_complete = len(self.batches) == self._wanted

    def _draw(self, trainer: Trainer, pl_module: LightningModule, data: Iterable[Any]) -> None:
        """Iterate the user's data without a trace in the random streams."""
        with quiet(trainer, pl_module):
            seed_streams(pl_module, self._seed)
            for index, batch in enumerate(data):
                if index == self._wanted:
                    break
                moved = trainer.precision_plugin.convert_input(batch)
                moved = pl_module.on_before_batch_transfer(moved, 0)
                self._join(trainer.strategy.batch_to_device(moved), index)
        if not self.is_complete:
            raise ValueError(
                f"`CurvatureMonitor(data=..., num_batches={self._wanted})`: the data have {len(self.batches)} batches."
            )


def full_precision(tensor: Tensor) -> Tensor:
    """In float32, if it is in half precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _copied(batch: Any) -> Any:
    """The batch with its tensors cloned; what is neither tensor nor a container that torch knows is copied as a whole."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return full_precision(leaf.detach()).clone()
        try:
            return copy.deepcopy(leaf)
        except Exception:  # whatever it is, it cannot be copied
            return leaf

    with torch.inference_mode(False):
        return _pytree.tree_map(one, batch)
