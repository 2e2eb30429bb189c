"""`UnderTrained`: thresholds and words; it never fires."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.reports import layer, report

from lightning_ww import UnderTrained, diagnose


def judged(**values: Any) -> Any:
    numbers: dict[str, Any] = {"alpha": 7.0, "rand_distance": 0.06, "rand_distance_floor": 0.01, "M": 60}
    end = layer("end", alpha=3.0)
    return diagnose(report(end, layer("a", **(numbers | values)), end), [UnderTrained()])


@pytest.mark.parametrize(
    ("values", "is_flagged"),
    [
        ({}, True),
        ({"alpha": 6.0}, False),
        ({"rand_distance": 0.049}, False),  # like noise
        ({"rand_distance_floor": None}, False),
        ({"alpha": None}, False),
        ({"M": 49}, False),
    ],
)
def test_a_weak_tail_of_a_layer_that_has_learned_is_flagged_and_never_fires(
    values: dict[str, Any], is_flagged: bool
) -> None:
    assert bool(judged(**values).flags) == is_flagged
    assert judged(**values).fired == ()


def test_it_gives_its_numbers() -> None:
    said = "alpha 7.00 (threshold 6), rand_distance 0.06, 6.0 times that of noise (threshold 5)"
    assert said in str(judged().flags[0])


@pytest.mark.parametrize("name", ["enter", "floors"])
def test_unfit_thresholds_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        UnderTrained(**{name: -1.0})
