"""The number of samples of an epoch, whatever the loader, against a count of those that were seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.networks import Batch, quiet_trainer
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lightning_ww.callbacks._sandbox.training_samples import num_training_samples

DATA = TensorDataset(torch.arange(96.0).unsqueeze(1), torch.zeros(96, dtype=torch.int64))


class Seen(Callback):
    """The samples of an epoch, and what is said of them."""

    def __init__(self) -> None:
        self.samples: set[float] = set()
        self.said: int | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        batch = next(iter(batch.values())) if isinstance(batch, dict) else batch
        self.samples |= set(batch[0].flatten().tolist())
        self.said = num_training_samples(trainer)


class Balanced(BatchSampler):
    """A batch sampler of the user's own."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.batches = list(BatchSampler(*arguments, **named))

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Ignoring(LightningModule):
    """Its loss does not need the data."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.hidden.weight.square().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def seen(loader: Any, **options: Any) -> Seen:
    found = Seen()
    quiet_trainer(callbacks=[found], max_epochs=1, limit_val_batches=0, **options).fit(Ignoring(), loader)
    return found


LOADERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (lambda: DataLoader(DATA, 16), {}),
    "last batch dropped": (lambda: DataLoader(DATA, 36, drop_last=True), {}),
    "subset": (lambda: DataLoader(DATA, 16, sampler=SubsetRandomSampler(range(40))), {}),
    "batch sampler": (lambda: DataLoader(DATA, batch_sampler=BatchSampler(range(24), 8, False)), {}),
    "limited": (lambda: DataLoader(DATA, 16), {"limit_train_batches": 2}),
    "limited to a share": (lambda: DataLoader(DATA, 16), {"limit_train_batches": 0.5}),
    "few steps": (lambda: DataLoader(DATA, 16), {"max_steps": 2, "accumulate_grad_batches": 2}),
    "overfit": (lambda: DataLoader(DATA, 16), {"overfit_batches": 3}),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_the_number_is_that_of_the_samples_seen(kind: str) -> None:
    make, options = LOADERS[kind]
    found = seen(make(), **options)
    assert found.said == len(found.samples)


def test_draws_with_replacement_are_counted_as_draws() -> None:
    found = seen(DataLoader(DATA, 16, sampler=RandomSampler(DATA, replacement=True, num_samples=48)))
    assert found.said == 48
    found = seen(DataLoader(DATA, 16, sampler=WeightedRandomSampler([1.0] * 96, 200)))
    assert found.said == 96


class Endless(IterableDataset[Batch]):
    def __iter__(self) -> Iterator[Any]:
        yield from [DATA[i] for i in range(32)]


def test_what_cannot_be_told_is_unknown() -> None:
    assert seen(DataLoader(Endless(), 16)).said is None
    assert seen({"a": DataLoader(DATA, 16), "b": DataLoader(DATA, 8)}).said is None


class OwnBatches:
    """A batch sampler of the user's own."""

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([0, 1, 2], [3, 4, 5], [6, 7, 8])

    def __len__(self) -> int:
        return 3


class NoLength:
    """A sampler that does not say how many it gives."""

    def __iter__(self) -> Iterator[int]:
        yield from range(10)


@pytest.mark.parametrize(
    "loader",
    [
        lambda: DataLoader(DATA, batch_sampler=Balanced(range(24), 8, drop_last=False)),
        lambda: DataLoader(DATA, batch_size=None, sampler=BatchSampler(RandomSampler(DATA), 16, drop_last=False)),
        lambda: DataLoader(DATA, batch_sampler=OwnBatches()),
        lambda: DataLoader(DATA, batch_size=2, sampler=NoLength()),
    ],
    ids=[
        "subclass of BatchSampler",
        "whole batches from the data set",
        "own batch sampler",
        "sampler without a length",
    ],
)
def test_batches_that_others_make_have_an_unknown_number_of_samples(loader: Any) -> None:
    assert seen(loader()).said is None


def test_a_batch_sampler_that_drops_the_rest_is_heeded() -> None:
    sampler = BatchSampler(SubsetRandomSampler(range(90)), 16, drop_last=True)
    found = seen(DataLoader(DATA, batch_sampler=sampler))
    assert found.said == len(found.samples) == 80
