"""`VanishingGradients`: the ratio to the layers after it, its two thresholds, and what is not judged."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.reports import followed

from lightning_ww import VanishingGradients
from lightning_ww.gradients import GradientReport, LayerGradients


def report(*norms: float | None) -> GradientReport:
    """Layers 0, 1, … in the order of the forward pass."""
    layers = [LayerGradients(name=f"{i}", kind="Linear", num_elements=9, depth=i, norm=x) for i, x in enumerate(norms)]
    return GradientReport(tuple(layers))


def flagged(*reports: GradientReport, **options: Any) -> list[list[str]]:
    silent = report(None, None, None)  # the start, where there are no gradients
    said = followed([silent, *reports], VanishingGradients(**options))
    return [sorted(one.layers("vanishing_gradients")) for one in said][1:]


def test_a_layer_is_flagged_at_two_reports_in_a_row_by_its_part_of_the_largest_norm_after_it() -> None:
    for row, options, expected in (
        ((0.99e-4, 0.2, 1.0), {}, ["0"]),
        ((1.01e-4, 0.2, 1.0), {}, []),
        ((0.0, 0.2, 1.0), {}, ["0"]),
        ((1.0, 1e-9, 1e-9), {}, []),  # only what comes after counts
        ((0.01, 0.2, 1.0), {"enter": 0.1, "leave": 0.2}, ["0"]),
    ):
        assert flagged(report(*row), report(*row), **options) == [[], expected]


def test_a_gradient_that_grows_out_of_zero_is_not_flagged_and_one_that_stays_small_is() -> None:
    growing = [report(x, 1, 1) for x in (0.0, 1e-9, 1e-8, 1e-7, 1e-6)]
    assert flagged(*growing) == [[]] * 5
    assert flagged(*growing, report(1e-6, 1, 1)) == [[]] * 5 + [["0"]]


def test_the_factors_of_a_low_rank_product_are_not_judged() -> None:
    layers = tuple(
        LayerGradients(name=f"{i}", kind="Linear", num_elements=9, depth=i, norm=x, is_factor=i == 0)
        for i, x in enumerate((1e-9, 1.0))
    )
    assert flagged(GradientReport(layers), GradientReport(layers)) == [[], []]


def test_a_flag_falls_only_above_the_second_threshold() -> None:
    rows = [report(x, 1, 1) for x in (1e-5, 1e-5, 5e-4, 2e-3, 5e-4, 5e-4, 1e-5, 1e-5)]
    assert flagged(*rows)[1] == ["0"]
    assert flagged(*rows)[2] == []  # it has more than doubled
    slow = [report(x, 1, 1) for x in (1e-5, 1e-5, 1.9e-5, 3.7e-5, 7e-5, 1.3e-4, 2.5e-4, 4.9e-4, 9e-4, 1.7e-3)]
    assert [bool(one) for one in flagged(*slow)] == [False] + [True] * 8 + [False]


def test_layers_without_a_gradient_or_a_known_depth_are_not_judged() -> None:
    assert flagged(report(None, 0.2, 1.0), report(None, 0.2, 1.0)) == [[], []]
    assert flagged(report(0.0, 0.0, 0.0), report(0.0, 0.0, 0.0)) == [[], []]
    unknown = GradientReport(
        tuple(LayerGradients(name=f"{i}", kind="Linear", num_elements=9, norm=x) for i, x in enumerate((1e-9, 1.0)))
    )
    assert flagged(unknown, unknown) == [[], []]


def test_it_gives_its_numbers() -> None:
    said = followed([report(None, None), report(1e-6, 0.5), report(1e-6, 0.5)], VanishingGradients())[-1].flags[0]
    assert "gradient norm 1e-06, 2e-06 of the largest one after it (threshold 0.0001)" in str(said)


@pytest.mark.parametrize("values", [{"enter": -1.0}, {"leave": 2.0}, {"enter": 0.1, "leave": 0.01}])
def test_unfit_arguments_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="VanishingGradients"):
        VanishingGradients(**values)
