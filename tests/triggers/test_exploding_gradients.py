"""`ExplodingGradients`: the multiples of the layers after it and of its own past, and what is not judged."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.reports import followed

from lightning_ww import ExplodingGradients
from lightning_ww.gradients import GradientReport, LayerGradients


def report(*norms: float | None) -> GradientReport:
    layers = [
        LayerGradients(name=f"{i}", kind="Linear", num_elements=9, depth=i, highest_norm=x) for i, x in enumerate(norms)
    ]
    return GradientReport(tuple(layers))


def flagged(*reports: GradientReport, **options: Any) -> list[list[str]]:
    trigger = ExplodingGradients(**options)
    return [sorted(one.layers("exploding_gradients")) for one in followed(list(reports), trigger)][1:]


START = report(None, None, None, None)


def test_a_layer_is_flagged_by_its_multiple_of_the_median_after_it() -> None:
    assert flagged(START, report(1100, 1, 0.9, 2)) == [["0"]]
    assert flagged(START, report(900, 1, 0.9, 2)) == [[]]
    assert flagged(START, report(900, 1, 0.9, 2), enter=500) == [["0"]]
    assert flagged(START, report(1100, 1100, 1, 1)) == [["0"]]  # too few layers are after the second


def test_a_layer_is_flagged_by_its_multiple_of_its_own_past() -> None:
    calm = [report(1, 1, 1, 1)] * 3
    assert flagged(START, *calm, report(1, 1, 1, 1001)) == [[], [], [], ["3"]]
    assert flagged(START, *calm[:2], report(1, 1, 1, 1001)) == [[], [], []]  # too short a past
    assert flagged(START, *calm, report(1, 1, 1, 999)) == [[], [], [], []]


def test_a_flag_falls_only_below_the_second_threshold() -> None:
    rows = [report(x, 1, 1, 1) for x in (2000, 500, 50, 500)]
    assert flagged(START, *rows, over=3) == [["0"], ["0"], [], []]


def test_a_layer_without_a_number_is_not_judged() -> None:
    assert flagged(START, report(None, 1, 1, 1), report(0.0, 0.0, 0.0, 0.0)) == [[], []]


def test_it_gives_its_numbers() -> None:
    said = followed([START, report(2000, 1, 1, 1)], ExplodingGradients())[-1].flags[0]
    assert "gradient norm 2e+03, 2e+03 times the median of the layers after it (threshold 1000)" in str(said)


@pytest.mark.parametrize("values", [{"enter": -1.0}, {"enter": 10.0, "leave": 20.0}, {"over": 2}])
def test_unfit_arguments_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ExplodingGradients"):
        ExplodingGradients(**values)
