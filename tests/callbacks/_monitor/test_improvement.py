"""A metric of the Trainer improves, or does not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lightning_ww.callbacks._monitor.improvement import Improvement


def stale(values: list[float], **options: Any) -> list[int]:
    arguments: dict[str, Any] = {"mode": "min", "min_delta": 0.0}
    metric = Improvement("loss", **(arguments | options))
    numbers = []
    for value in values:
        assert metric.look({"loss": torch.tensor(value)}) is None
        numbers.append(metric.num_stale)
    return numbers


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([3.0, 2.0, 2.0, 2.5, 1.0], {}, [0, 0, 1, 2, 0]),
        ([1.0, 2.0, 2.0, 3.0], {"mode": "max"}, [0, 0, 1, 0]),
        ([3.0, 2.75, 2.25], {"min_delta": 0.5}, [0, 1, 0]),
        ([math.nan, 3.0, math.inf, 2.0], {}, [1, 0, 1, 0]),
    ],
)
def test_looks_without_improvement_are_counted(values: Any, options: Any, expected: Any) -> None:
    assert stale(values, **options) == expected


def test_a_metric_that_is_not_there_changes_nothing() -> None:
    metric = Improvement("loss", "min", 0.0, best=1.0, num_stale=2)
    said = metric.look({"other": torch.tensor(0.0)})
    assert said == "finds no `loss`, and without it only `nonfinite` stops. Logged are: other."
    assert metric.look({}) is None  # it is said once
    assert (metric.best, metric.num_stale) == (1.0, 2)
    assert metric.sentence == " `loss` was not better than 1 at 2 measurements."


def test_its_state_gives_the_same_back() -> None:
    for metric in (Improvement("loss", "min", 0.0), Improvement("loss", "min", 0.0, best=1.5, num_stale=2)):
        again = Improvement("loss", "min", 0.0)
        again.load_state_dict(metric.state_dict())
        assert again == metric
