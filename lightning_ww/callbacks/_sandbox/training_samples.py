"""The number of samples that an epoch trains on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.data import BatchSampler, DataLoader

from lightning_ww.callbacks._monitor.lightning import training_loaders
from lightning_ww.callbacks._sandbox.objects import is_foreign

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import Trainer


def num_training_samples(trainer: Trainer) -> int | None:
    """The number of samples that an epoch draws, at most those of the data set, or ``None`` if it is unknown.

    Samplers, ``limit_train_batches``, ``overfit_batches`` and a ``max_steps`` below an epoch are heeded. A sample that a
    sampler draws twice counts twice. Of several loaders, which are combined into one batch, the samples cannot be told
    from each other's parts.
    """
    loaders = training_loaders(trainer)
    if len(loaders) != 1:
        return None
    total = _samples(loaders[0], trainer.world_size)
    if total is None:
        return None
    batches, whole = min(trainer.num_training_batches, _most_batches(trainer)), _length(loaders[0])
    size = _batch_size(loaders[0])
    if whole is None or batches == float("inf") or batches >= whole:
        return total
    return min(total, int(batches) * size * trainer.world_size) if size is not None else None


def _most_batches(trainer: Trainer) -> float:
    """The most batches that ``max_steps`` allows in the whole run; steps taken by hand are not tied to batches."""
    if trainer.max_steps == -1 or not trainer.lightning_module.automatic_optimization:
        return float("inf")
    return trainer.max_steps * trainer.accumulate_grad_batches


def _samples(loader: Any, world_size: int) -> int | None:
    """The samples of a whole epoch, in all processes."""
    if not _is_counted(loader):
        return None
    sampler = _setting(loader, "sampler")
    dataset = _length(getattr(loader, "dataset", None))
    drawn = _length(sampler)
    if hasattr(sampler, "num_replicas"):  # its length is that of this process's part
        drawn = None if drawn is None else min(drawn * int(sampler.num_replicas), dataset or drawn * world_size)
    elif drawn is not None and world_size > 1:
        drawn = min(drawn * world_size, dataset) if dataset is not None else drawn * world_size
    if dataset is None or (sampler is not None and drawn is None):
        return None
    count = dataset if drawn is None else min(dataset, drawn)
    if _setting(loader, "drop_last") and (size := _batch_size(loader)) is not None:
        return count // (size * world_size) * size * world_size or count
    return count


def _is_counted(loader: Any) -> bool:
    """Whether the loader makes batches of samples itself: neither the data set nor a batch sampler of the user's own."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    if batch_sampler is None:
        return not isinstance(loader, DataLoader)
    return isinstance(batch_sampler, BatchSampler) and is_foreign(type(batch_sampler))  # torch's or Lightning's


def _setting(loader: Any, name: str) -> Any:
    """An attribute of the loader's batch sampler, or else of the loader."""
    return getattr(getattr(loader, "batch_sampler", None), name, None) or getattr(loader, name, None)


def _batch_size(loader: Any) -> int | None:
    size = _setting(loader, "batch_size")
    return size if isinstance(size, int) else None


def _length(thing: Any) -> int | None:
    try:
        return len(thing)
    except (TypeError, NotImplementedError, AttributeError):
        return None
