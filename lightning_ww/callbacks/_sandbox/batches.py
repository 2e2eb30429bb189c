"""The batches that the curvature is measured on, taken once and kept, so that changes come from the weights alone."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree

from lightning_ww._errors import ArgumentError
from lightning_ww._torch import double_precision, full_precision
from lightning_ww.callbacks._monitor.guard import PostponedError, RefusedError
from lightning_ww.callbacks._sandbox.mute import muted, seed_streams
from lightning_ww.callbacks._sandbox.objects import slots
from lightning_ww.callbacks._sandbox.rollback import put_back

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer


MOST_UNFIT = 10
"""The most batches that are tried before the first measurement."""

MAX_DEPTH = 8
"""The deepest nesting of containers in which the size of a batch is searched."""

CHANNELS = (1, 3, 4)
"""The numbers of channels of images."""


@dataclass(frozen=True)
class CapturedBatch:
    """A copy of one batch, as `training_step` gets it."""

    batch: Any
    index: int  # of the batch in its epoch
    size: int | None  # the number of its samples; None: it cannot be told

    @classmethod
    def of(cls, batch: Any, index: int, size: int | None) -> CapturedBatch:
        """Copy a batch of training, of a known or unknown size."""
        return cls(_copied(batch), index, size)

    def in_double(self) -> CapturedBatch:
        """The batch with its numbers in float64."""
        return CapturedBatch(_copied(self.batch, double_precision), self.index, self.size)

    def first_samples(self, count: int) -> CapturedBatch | None:
        """The batch with its first samples alone, or ``None`` if it has no more, or their number is not known."""
        if self.size is None or self.size <= count:
            return None

        def cut(tensor: Tensor) -> Tensor:
            return tensor[:count] if tensor.ndim and tensor.shape[0] == self.size else tensor

        return CapturedBatch(_copied(self.batch, cut), self.index, count)

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
        size_of: The user's own function that tells the size of a batch. Default: ``None``.
    """

    def __init__(
        self,
        call: str,
        wanted: int,
        data: Iterable[Any] | None,
        seed: int,
        size_of: Callable[[Any], int] | None = None,
    ) -> None:
        self._call, self._wanted, self._data, self._seed, self._size_of = call, wanted, data, seed, size_of
        self.are_drawn = data is not None
        self.batches: list[CapturedBatch] = []
        self.is_complete = False
        self.unfit: list[str] = []  # why batches were dropped

    def take(self, trainer: Trainer, pl_module: LightningModule, batch: Any, index: int) -> None:
        """Keep a batch of training, or all batches of the user's own data at once.

        Raises:
            ArgumentError: If the user's own data have fewer batches than wanted.
        """
        if self._data is None:
            self._join(batch, index)
        else:
            self._draw(trainer, pl_module, self._data)

    def drop(self, why: str, captured: CapturedBatch | None = None) -> None:
        """Drop a batch that cannot be measured, or the last one; the next one takes its place."""
        kept = [batch for batch in self.batches if batch is not captured]
        self.batches = kept if len(kept) < len(self.batches) else self.batches[:-1]
        self.unfit.append(why)
        self.is_complete = False

    def give_up(self) -> None:
        """Raise `RefusedError` if enough batches were tried, or the user's own cannot be measured."""
        if len(self.unfit) >= MOST_UNFIT or self.are_drawn:
            raise RefusedError(f"No batch could be measured. Of the last: {self.unfit[-1].removesuffix('.')}")

    def why_none(self) -> str | None:
        """The reason why there are none at the end of a fit, if batches were left out."""
        if self.is_complete or not self.unfit:
            return None
        why = self.unfit[0].removesuffix(".")
        return (
            f"has measured nothing: none of the first {len(self.unfit)} batches could be measured. Of the first: {why}."
        )

    def close(self) -> str | None:
        """Stop waiting for batches if an epoch had too few; return a warning in that case."""
        if self.is_complete or not self.batches:
            return None
        self.is_complete = True
        return f"measures on {len(self.batches)} batches: an epoch has no more (`num_batches={self._wanted}`)."

    def _join(self, batch: Any, index: int) -> None:
        size = self._size(batch)
        if size == 0:
            self._leave_out("it has no samples")
        try:
            captured = CapturedBatch.of(batch, index, size)
        except Exception as error:
            self._leave_out(f"it cannot be copied ({type(error).__name__}: {error})")
        self.batches.append(captured)
        self.is_complete = len(self.batches) == self._wanted

    def _size(self, batch: Any) -> int | None:
        if self._size_of is None:
            return batch_size(batch)
        try:
            size = self._size_of(batch)
            whole = int(size)
        except Exception as error:
            self._leave_out(f"`batch_size_fn` fails on it ({type(error).__name__}: {error})")
        if whole != size or whole < 0:
            self._leave_out(f"`batch_size_fn` has to return a number of samples, but returned {size!r}")
        return whole

    def _leave_out(self, why: str) -> NoReturn:
        self.unfit.append(why)
        self.give_up()
        raise PostponedError(why)

    def _draw(self, trainer: Trainer, pl_module: LightningModule, data: Iterable[Any]) -> None:
        """Iterate the user's data without an effect on the random streams."""
        with muted(trainer, pl_module), put_back(pl_module):
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


def batch_size(batch: Any) -> int | None:
    """The number of samples of a batch, or ``None`` if its tensors disagree on it, or there are none.

    It is the length of every tensor in it, at any depth, as Lightning finds it; of a packed sequence the number of
    sequences, and of a batch that knows its size (PyTorch Geometric's, TensorDict's) what it says.
    """
    sizes = set(_sizes(batch, 0))
    return sizes.pop() if len(sizes) == 1 else None


def _sizes(value: Any, depth: int) -> Iterator[int]:
    known = getattr(value, "num_graphs", None)
    known = getattr(value, "batch_size", None) if known is None else known
    known = known[0] if isinstance(known, tuple) and known else known
    if isinstance(known, int) and not isinstance(known, bool) and not isinstance(value, Tensor):
        yield known
    elif isinstance(value, PackedSequence):
        yield int(value.batch_sizes[0])
    elif isinstance(value, Tensor):
        if value.ndim:
            yield value.size(0) if value.is_nested else value.shape[0]
    elif depth <= MAX_DEPTH and not isinstance(value, str | bytes):
        if depth and _is_list_of_samples(value):
            yield len(value)
            return
        for item in _inside(value):
            yield from _sizes(item, depth + 1)


def _is_list_of_samples(value: Any) -> bool:
    """Tell whether this is a list with a tensor for each sample, such as images, rather than a few tensors of a batch.

    Images of one size have three axes, and as many channels; two views of a batch are no such list.
    """
    is_list = isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(item, Tensor) for item in value)
    return is_list and all(
        item.ndim == 3 and item.shape[0] in CHANNELS and len(value) != item.shape[0] for item in value
    )


def _inside(value: Any) -> Iterable[Any]:
    """The items of a container, or the attributes of an object."""
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    return [getattr(value, name) for name in (*getattr(value, "__dict__", {}), *slots(value)) if hasattr(value, name)]


def _copied(batch: Any, convert: Callable[[Tensor], Tensor] = full_precision) -> Any:
    """A copy of the batch with its tensors converted and cloned, also those inside the user's own objects."""

    def renewed(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return convert(leaf.detach()).clone().requires_grad_(leaf.requires_grad)
        twin = copy.deepcopy(leaf)  # an object that cannot be copied is not lent, as the step may use it up
        for name in (*getattr(twin, "__dict__", {}), *slots(twin)):
            if isinstance(item := getattr(twin, name, None), Tensor | list | tuple | dict):
                object.__setattr__(twin, name, _pytree.tree_map(renewed, item))
        return twin

    with torch.inference_mode(False):
        return _pytree.tree_map(renewed, batch)
