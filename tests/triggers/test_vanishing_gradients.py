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
    silent = report(1.0, 1.0, 1.0)  # the start, where nothing is news
    return [
        sorted(one.layers("vanishing_gradients")) for one in followed([silent, *reports], VanishingGradients(**options))
    ][1:]


def test_a_layer_is_flagged_by_its_part_of_the_largest_norm_after_it() -> None:
    assert flagged(report(0.99e-4, 0.2, 1.0)) == [["0"]]
    assert flagged(report(1.01e-4, 0.2, 1.0)) == [[]]
    assert flagged(report(0.0, 0.2, 1.0)) == [["0"]]
    assert flagged(report(1.0, 1e-9, 1e-9)) == [[]]  # only what comes after counts
    assert flagged(report(0.01, 0.2, 1.0), enter=0.1, leave=0.2) == [["0"]]


def test_a_flag_falls_only_above_the_second_threshold() -> None:
    assert flagged(report(1e-5, 1, 1), report(5e-4, 1, 1), report(2e-3, 1, 1), report(5e-4, 1, 1)) == [
        ["0"],
        ["0"],
        [],
        [],
    ]


def test_layers_without_a_gradient_or_a_known_depth_are_not_judged() -> None:
    assert flagged(report(None, 0.2, 1.0)) == [[]]
    assert flagged(report(0.0, 0.0, 0.0)) == [[]]
    unknown = GradientReport(
        tuple(LayerGradients(name=f"{i}", kind="Linear", num_elements=9, norm=x) for i, x in enumerate((1e-9, 1.0)))
    )
    assert flagged(unknown) == [[]]


def test_it_gives_its_numbers() -> None:
    said = followed([report(1.0, 1.0), report(1e-6, 0.5)], VanishingGradients())[-1].flags[0]
    assert "gradient norm 1e-06, 2e-06 of the largest one after it (threshold 0.0001)" in str(said)


@pytest.mark.parametrize("values", [{"enter": -1.0}, {"leave": 2.0}, {"enter": 0.1, "leave": 0.01}])
def test_unfit_arguments_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="VanishingGradients"):
        VanishingGradients(**values)
