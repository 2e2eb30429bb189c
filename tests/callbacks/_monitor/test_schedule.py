"""The schedule of measurements, by epochs and by steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.fits import fit
from helpers.fits import weight_monitor as monitor
from helpers.networks import Classifier
from torch import nn


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({}, [0, 6, 12, 18]),
        ({"every_n_epochs": 2}, [0, 12]),
        ({"every_n_epochs": None, "every_n_train_steps": 4}, [0, 4, 8, 12, 16]),
        ({"every_n_train_steps": 4}, [0, 4, 6, 8, 12, 16, 18]),
    ],
)
def test_measures_at_the_start_and_on_schedule(schedule: dict[str, Any], expected: list[int]) -> None:
    ours = monitor(**schedule)
    fit(ours, max_epochs=3)
    assert [past.step for past in ours.history] == expected
    assert [past.is_baseline for past in ours.history] == [True] + [False] * (len(expected) - 1)


def test_measures_once_per_step_under_accumulation() -> None:
    ours = monitor(every_n_epochs=None, every_n_train_steps=1)
    fit(ours, accumulate_grad_batches=3, max_epochs=2)
    assert [past.step for past in ours.history] == [0, 1, 2, 3, 4]


def test_an_epoch_cut_short_is_measured_at_its_end() -> None:
    ours = monitor()
    fit(ours, max_steps=8, max_epochs=-1)
    assert [past.step for past in ours.history] == [0, 6, 8]


def test_steps_are_counted_in_strides_with_several_optimizers() -> None:
    class Two(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.hidden.parameters(), 0.01), torch.optim.SGD(self.head.parameters(), 0.01)]

        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            for i, optimizer in enumerate(self.optimizers()):
                optimizer.zero_grad()
                self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
                if batch_idx or i:  # the first batch of an epoch makes one step, the others two
                    optimizer.step()

    ours = monitor(every_n_epochs=None, every_n_train_steps=4)
    fit(ours, model=Two(), max_epochs=2)
    assert [past.step for past in ours.history] == [0, 5, 9, 12, 16, 20]
