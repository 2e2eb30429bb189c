"""The batches that the curvature is measured on, taken once and kept, so that changes come from the weights alone."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree

from lightning_ww._errors import ArgumentError
from lightning_ww._torch import full_precision
from lightning_ww.callbacks._sandbox.mute import muted, seed_streams

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer


MAX_DEPTH = 8
"""The deepest nesting of containers in which the size of a batch is searched."""


@dataclass(frozen=True)
class CapturedBatch:
    """A copy of one batch, as `training_step` gets it."""

    batch: Any
    index: int  # of the batch in its epoch
    size: int  # length of its first tensor

    @classmethod
    def of(cls, batch: Any, index: int) -> CapturedBatch:
        """Copy a batch of training."""
        return cls(_copied(batch), index, _size(batch) or 1)

    def fresh(self) -> Any:
        """A copy of the batch, which the caller may change."""
        return _copied(self.batch)


class KeptBatches:
    """The first batches of training, or those of the user's own data.

    Args:
        call: The class that error messages name.
        wanted: The number of batches.
        data: The user's own data; ``None``: batches of training.
        seed: The seed of the random streams while the data are iterated.
    """

    def __init__(self, call: str, wanted: int, data: Iterable[Any] | None, seed: int) -> None:
        self._call, self._wanted, self._data, self._seed = call, wanted, data, seed
        self.are_drawn = data is not None
        self.batches: list[CapturedBatch] = []
        self.is_complete = False

    def take(self, trainer: Trainer, pl_module: LightningModule, batch: Any, index: int) -> None:
        """Keep a batch of training, or all batches of the user's own data at once.

        Raises:
            ArgumentError: If the user's own data have fewer batches than wanted.
        """
        if self._data is None:
            self._join(batch, index)
        else:
            self._draw(trainer, pl_module, self._data)

    def close(self) -> str | None:
        """Stop waiting for batches if an epoch had too few; return a warning in that case."""
        if self.is_complete or not self.batches:
            return None
        self.is_complete = True
        return f"measures on {len(self.batches)} batches: an epoch has no more (`num_batches={self._wanted}`)."

    def _join(self, batch: Any, index: int) -> None:
        self.batches.append(CapturedBatch.of(batch, index))
        self.is_complete = len(self.batches) == self._wanted

    def _draw(self, trainer: Trainer, pl_module: LightningModule, data: Iterable[Any]) -> None:
        """Iterate the user's data without an effect on the random streams."""
        with muted(trainer, pl_module):
            seed_streams(pl_module, self._seed)
            for index, batch in enumerate(itertools.islice(data, self._wanted)):
                moved = trainer.precision_plugin.convert_input(batch)
                moved = pl_module._on_before_batch_transfer(
                    moved, dataloader_idx=0
                )  # the datamodule's hook, if there is one
                self._join(trainer.strategy.batch_to_device(moved), index)
        if not self.is_complete:
            raise ArgumentError(
                f"`{self._call}(data=..., num_batches={self._wanted})`: the data have {len(self.batches)} batches."
            )


def _size(batch: Any, depth: int = 0) -> int | None:
    """The length of the first tensor in a batch, at any depth, or ``None``."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else None
    if depth > MAX_DEPTH or isinstance(batch, str):
        return None
    if isinstance(batch, Mapping):
        inside: Iterable[Any] = batch.values()
    elif isinstance(batch, list | tuple):
        inside = batch
    else:
        inside = getattr(batch, "__dict__", {}).values()
    return next((size for item in inside if (size := _size(item, depth + 1)) is not None), None)


def _copied(batch: Any) -> Any:
    """A copy of the batch with its tensors cloned, also those inside the user's own objects."""

    def renewed(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return full_precision(leaf.detach()).clone()
        try:
            twin = copy.deepcopy(leaf)
        except Exception:  # an object that cannot be copied
            return leaf
        for name, item in list(getattr(twin, "__dict__", {}).items()):
            if isinstance(item, Tensor | list | tuple | dict):
                vars(twin)[name] = _pytree.tree_map(renewed, item)
        return twin

    with torch.inference_mode(False):
        return _pytree.tree_map(renewed, batch)
