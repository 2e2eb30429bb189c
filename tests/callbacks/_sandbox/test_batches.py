"""The batches that are measured on: taken once, and kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.measured import fit
from helpers.networks import data, quiet_trainer
from helpers.tiny import Tiny
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ww.callbacks import CurvatureMonitor
from lightning_ww.callbacks._sandbox.batches import CapturedBatch, batch_size


@dataclass
class Points:
    x: Tensor
    y: Tensor


@dataclass
class Flagged:
    """An object with a `batch_size` that is none."""

    x: Tensor
    batch_size: bool = True


class OfObjects(Tiny):
    """Its batches are objects that no library knows."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return Points(*batch) if isinstance(batch, list | tuple) else batch

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return batch

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step((batch.x, batch.y), batch_idx)


def test_batches_that_are_objects_have_their_size() -> None:
    monitor, _, _ = fit(OfObjects(), precision="32-true", num_batches=2)
    plain, _, _ = fit(Tiny(), precision="32-true", num_batches=2)
    assert monitor.history[0].summary["batch_size"] == 16
    assert plain.history[0].density.dim == monitor.history[0].density.dim


def test_data_that_cannot_be_read_are_said_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        yield from ()
        raise OSError("disk gone")

    monitor, _, trainer = fit(Tiny(), data=broken(), on_error="warn")
    assert "could not take a batch at step 0 (OSError: disk gone)" in caplog.text
    assert trainer.global_step == 3
    assert len(monitor.history) == 0


def test_own_data_pass_the_hooks_of_the_datamodule() -> None:
    class Module(LightningDataModule):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch["x"], batch["y"]

        def train_dataloader(self) -> Any:
            samples = [{"x": x, "y": y} for batch in data() for x, y in zip(*batch, strict=True)]
            return DataLoader(samples, batch_size=16)  # type: ignore[arg-type]

        def val_dataloader(self) -> Any:
            return DataLoader([{"x": torch.zeros(1), "y": torch.zeros(1)}])  # type: ignore[arg-type]

    monitor = CurvatureMonitor(every_n_epochs=1, data=[{"x": x, "y": y} for x, y in data(16)], on_error="raise")
    trainer = quiet_trainer(callbacks=[monitor], max_epochs=1)
    trainer.fit(Tiny(), datamodule=Module())
    assert monitor.history[0].summary["batch_size"] == 16


def test_a_run_that_ends_before_its_batches_are_there_says_so(caplog: pytest.LogCaptureFixture) -> None:
    monitor = CurvatureMonitor(every_n_epochs=1, num_batches=5, num_steps=3)
    trainer = quiet_trainer(callbacks=[monitor], max_steps=2, max_epochs=-1)
    trainer.fit(Tiny(), data(), data(16, shuffle=False))
    assert "measures on 2 batches: an epoch has no more (`num_batches=5`)" in caplog.text
    assert len(monitor.history) == 1


def test_first_samples_are_cut_from_what_is_as_long_as_the_batch() -> None:
    batch: Any = {"x": torch.arange(12.0).view(6, 2), "y": [torch.arange(6), torch.ones(3)], "scale": torch.tensor(2.0)}
    few = CapturedBatch.of(batch, 4, 6).first_samples(2)
    assert few is not None
    assert (few.index, few.size) == (4, 2)
    assert torch.equal(few.batch["x"], torch.arange(4.0).view(2, 2))
    assert [len(part) for part in few.batch["y"]] == [2, 3]
    assert few.batch["scale"] == 2
    assert CapturedBatch.of(batch, 4, None).first_samples(2) is None
    assert CapturedBatch.of(batch, 4, 2).first_samples(2) is None


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (([torch.ones(3, 8, 8)] * 16, [1] * 16), 16),  # images
        (([torch.ones(3, 8, 8)] * 2, [{"boxes": torch.ones(5, 4)}] * 2), None),  # as detection has them, with boxes
        (([torch.ones(16, 3, 8, 8)] * 2, torch.ones(16)), 16),  # two views of a batch
        ([torch.ones(4, 9, 5), torch.ones(4, 9)], 4),  # series
        (([torch.ones(3, 5, 2)] * 3, torch.ones(3)), 3),
        (Flagged(torch.ones(8, 2)), 8),
    ],
)
def test_a_list_of_images_has_as_many_samples_as_images(batch: Any, size: int | None) -> None:
    assert batch_size(batch) == size
