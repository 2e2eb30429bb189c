"""The objects around a module are restored, and data of any size are left alone."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from helpers.networks import Batch, data, quiet_trainer
from helpers.tiny import Tiny
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from lightning_ww.callbacks._sandbox.rollback import put_back
from lightning_ww.callbacks._sandbox.surroundings import Settings, objects_around

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
    owner.level, owner.images, owner.index = 2, torch.zeros(3), list(range(1000))
    assert Settings(owner).values() == {"level": 2}
