"""`NotLearning`: the number of measurements and the threshold; it never fires."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from helpers.reports import followed, layer, report

from lightning_ww import NotLearning

METRIC = "distance_from_init_relative"


def flagged(distances: Sequence[float | None], **options: Any) -> list[bool]:
    found = followed([report(layer("a", **{METRIC: distance})) for distance in distances], NotLearning(**options))
    assert all(one.fired == () for one in found)
    return [bool(one.flags) for one in found]


def test_a_layer_that_has_hardly_moved_is_flagged_from_the_fifth_measurement_after_the_start_on() -> None:
    assert flagged([0.0] + [5e-4] * 6) == [False] * 5 + [True] * 2
    assert flagged([0.0] + [5e-4] * 3, after=2) == [False, False, True, True]


def test_a_layer_that_moves_or_is_not_measured_is_not() -> None:
    assert flagged([0.0] + [1e-3] * 6) == [False] * 7
    assert flagged([None] * 7) == [False] * 7


def test_it_gives_its_numbers() -> None:
    found = followed([report(layer("a", **{METRIC: 2.5e-4}))] * 6, NotLearning())[-1]
    assert "distance_from_init_relative 0.00025 after 5 steps (threshold 0.001)" in str(found.flags[0])


@pytest.mark.parametrize("values", [{"enter": -1.0}, {"after": 0}, {"after": 1.5}])
def test_unfit_arguments_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        NotLearning(**values)
