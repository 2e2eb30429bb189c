"""The objects around a module are restored, and data of any size are left alone."""

from __future__ import annotations

import copy
import pickle
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers.networks import Batch, data, quiet_trainer
from helpers.tiny import Tiny
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, Subset, WeightedRandomSampler

from lightning_ww.callbacks._sandbox.rollback import put_back
from lightning_ww.callbacks._sandbox.surroundings import SMALL_ARRAY, Settings, objects_around

CALLS = [0]


def counted() -> int:
    counted.calls = getattr(counted, "calls", 0) + 1  # type: ignore[attr-defined]
    return int(counted.calls)  # type: ignore[attr-defined]


def counter() -> Any:
    """A function that counts its calls in a variable of this one."""
    calls = 0

    def count() -> int:
        nonlocal calls
        calls += 1
        return calls

    return count


class Scaled(torch.nn.Module):
    """Counts its calls in its class."""

    calls: ClassVar[int] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).calls += 1
        return x


class Wrapped(Dataset[Any]):
    """A data set around another one, with a transform that has a strength of its own."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.transforms = inner, [Noise()]

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        return self.inner[index]


class Noise:
    """A transform."""

    def __init__(self) -> None:
        self.strength = 1.0


class Curriculum(Sampler[int]):
    """A sampler with a level."""

    def __init__(self, length: int) -> None:
        self.length, self.level = length, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Any:
        return iter(range(self.length))


class Curious(Tiny):
    """Changes everything around it in its step."""

    temperature: ClassVar[float] = 1.0
    made: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.scaled, self.count = Scaled(), counter()

    def defaulted(self, calls: list[int] = []) -> None:  # noqa: B006 - as some write
        calls.append(1)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        CALLS[0] += 1
        counted()
        self.count()
        self.defaulted()
        self.scaled(batch[0])
        self.trainer.phase = self.global_step + 7  # type: ignore[attr-defined]
        type(self).temperature *= 0.9
        type(self).made = 1
        loader: Any = self.trainer.train_dataloader
        wrapped = loader.dataset.dataset
        wrapped.inner.difficulty += 1
        wrapped.transforms[0].strength *= 0.5
        loader.dataset.made = 1
        loader.sampler.level += 1
        self.trainer.optimizers[0].param_groups[0]["lr"] *= 0.5
        self.trainer.callback_metrics["own"] = torch.tensor(1.0)
        return super().training_step(batch, batch_idx)


class Stepping(Callback):
    """Runs a step in a rollback, and compares."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def look(self, trainer: Trainer) -> Any:
        group = trainer.optimizers[0].param_groups[0]
        loader: Any = trainer.train_dataloader
        made = [hasattr(owner, "made") for owner in (Curious, loader.dataset)]
        wrapped = loader.dataset.dataset
        numbers = CALLS[0], Curious.temperature, wrapped.inner.difficulty, group["lr"], Scaled.calls
        moved = wrapped.transforms[0].strength, loader.sampler.level
        model: Any = trainer.lightning_module
        cells: Any = model.count.__closure__[0].cell_contents, list(*(Curious.defaulted.__defaults__ or ()))
        others = getattr(counted, "calls", 0), getattr(trainer, "phase", 0)
        return *numbers, *moved, *cells, *others, made, dict(trainer.callback_metrics)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        found = [self.look(trainer)]
        with put_back(pl_module, *objects_around(trainer, pl_module)) as undone:
            pl_module.training_step(batch, batch_idx)
            found.append(self.look(trainer))
        assert not undone.errors
        self.found = [*found, self.look(trainer)]


def test_what_a_step_changes_around_its_module_is_as_it_was() -> None:
    stepping, inner = Stepping(), data().dataset
    inner.difficulty = 3  # type: ignore[attr-defined]
    loader = DataLoader(Subset(Wrapped(inner), range(32)), 16, sampler=Curriculum(32))
    trainer = quiet_trainer(callbacks=[stepping], max_epochs=1, limit_train_batches=1)
    trainer.fit(Curious(), loader, data(16, shuffle=False))
    before, during, after = stepping.found
    assert all(a != b for a, b in zip(before, during, strict=True))
    assert before == after


def test_the_data_themselves_are_not_copied() -> None:
    class Owner:
        pass

    owner: Any = Owner()
    owner.level, owner.images, owner.index = 2, torch.zeros(SMALL_ARRAY // 4 + 1), list(range(10_001))
    owner.array = np.zeros(SMALL_ARRAY // 8 + 1)
    assert Settings(owner).values() == {"level": 2}


class Slotted(Sampler[int]):
    """Has its level in a slot."""

    __slots__ = ("level", "made")

    def __init__(self) -> None:
        self.level = torch.zeros(3)

    def __len__(self) -> int:
        return 32

    def __iter__(self) -> Any:
        return iter(range(32))


class Writing(Callback):
    """Writes to samplers and data sets in a rollback, and compares."""

    def __init__(self, change: Any) -> None:
        self.change, self.found = change, list[list[bytes]]()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        loader: Any = trainer.train_dataloader
        before = held(loader)
        with put_back(pl_module, *objects_around(trainer, pl_module)) as undone:
            self.change(loader)
            during = held(loader)
        assert not undone.errors
        self.found = [before, during, held(loader)]


def held(loader: DataLoader[Any]) -> list[bytes]:
    """All that a loader's samplers and data set hold, as bytes."""
    places: list[Any] = [loader.dataset, loader.sampler, loader.batch_sampler]
    places += [getattr(place, "sampler", None) for place in places]
    found = []
    for place in places:
        values = dict(getattr(place, "__dict__", {})) | {name: getattr(place, name, None) for name in ("level", "made")}
        for value in values.values():
            value = value.get_state() if isinstance(value, torch.Generator) else value
            if isinstance(value, torch.Tensor | np.ndarray | list | int | float | None):
                found.append(value.numpy().tobytes() if isinstance(value, torch.Tensor) else pickle.dumps(value))
    return found


def loaders() -> dict[str, tuple[Any, Any]]:
    """Loaders, and what a step may do to them."""
    dataset: Any = data().dataset
    weighted = WeightedRandomSampler([1.0] * 32, 32, generator=torch.Generator())
    inner, counted = Slotted(), copy.copy(dataset)
    counted.counts, counted.array, counted.seen = torch.zeros(4), np.zeros(4), list(range(1000))

    def count(loader: Any) -> None:
        loader.dataset.counts += 1
        loader.dataset.array[0] = 1
        loader.dataset.seen.append(1)

    def mark(loader: Any) -> None:
        loader.batch_sampler.sampler.level += 1
        loader.batch_sampler.sampler.made = 1

    return {
        "weights of a sampler": (DataLoader(dataset, 16, sampler=weighted), lambda one: one.sampler.weights.mul_(2)),
        "its generator": (DataLoader(dataset, 16, sampler=weighted), lambda one: one.sampler.generator.manual_seed(5)),
        "a sampler in a batch sampler": (DataLoader(dataset, batch_sampler=BatchSampler(inner, 16, False)), mark),
        "arrays of the data set": (DataLoader(counted, 16), count),
    }


@pytest.mark.parametrize("kind", loaders())
def test_what_a_step_writes_to_samplers_and_data_sets_is_undone(kind: str) -> None:
    loader, change = loaders()[kind]
    writing = Writing(change)
    trainer = quiet_trainer(callbacks=[writing], max_epochs=1, limit_train_batches=1)
    trainer.fit(Tiny(), loader, data(16, shuffle=False))
    before, during, after = writing.found
    assert before == after != during
