"""`CorrelationTrap`: thresholds, shares and words."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from helpers.reports import followed, layer, report
from torch import nn

from lightning_ww import CorrelationTrap, LayerReport, analyze, diagnose
from lightning_ww.weights.marchenko_pastur import tracy_widom_threshold


def trapped(name: str, z: float, element: float, **values: Any) -> LayerReport:
    return layer(name, trap_z_centred=z, trap_element=element, **values)


def test_it_has_hysteresis() -> None:
    numbers = (0.0, 3.3, 2.1, 1.9, 2.1, 3.2, 4.0)
    seen = [bool(found.flags) for found in followed([report(trapped("a", z, 0.9)) for z in numbers], CorrelationTrap())]
    assert seen == [False, True, True, False, False, False, True]


def test_a_flag_that_is_held_says_down_to_where() -> None:
    held = followed([report(trapped("a", z, 1)) for z in (0, 5, 2.5)], CorrelationTrap())[-1]
    assert "(threshold 3.27, cleared below 2)" in str(held.flags[0])


@pytest.mark.parametrize("values", [{"is_embedding": True}, {"is_frozen": True}, {"M": 15}, {"zero_share": 0.2}])
def test_ineligible_layers_are_never_flagged(values: dict[str, Any]) -> None:
    assert diagnose(report(trapped("a", 99.0, 9.0, **values))).flags == ()


def test_it_fires_with_half_of_the_layers() -> None:
    fine = [trapped(name, 0.0, 0.1) for name in "ab"]
    assert diagnose(report(*fine, trapped("c", 5, 2))).fired == ()
    assert diagnose(report(fine[0], trapped("c", 5, 2))).fired == ("correlation_trap",)


def test_it_says_its_numbers_thresholds_meaning_and_lever() -> None:
    found = diagnose(report(trapped("a", 12.34, 1.5, trap_mean_shift=0.25)))
    assert str(found.flags[0]) == (
        "`correlation_trap` at layer `a`: trap_z_centred 12.3 (threshold 3.27), largest element 1.50 of the visible size, "
        "mean shift 0.25. A few large elements dominate it, or many moderately large ones. Often the learning rate is too "
        "large, or the data hold an outlier."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"enter": -1}, "`CorrelationTrap(enter=-1)`: expected a number of at least 0."),
        ({"leave": 4}, "`CorrelationTrap(leave=4)`: expected at most `enter`, which is 3.27."),
        ({"share": 2}, "`CorrelationTrap(share=2)`: expected a number from 0 to 1."),
    ],
)
def test_thresholds_out_of_their_domain(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CorrelationTrap(**arguments)


def test_slices_share_the_threshold() -> None:
    nine = tracy_widom_threshold(9)
    assert nine > tracy_widom_threshold(1) == pytest.approx(3.27, abs=0.01)
    for z, is_flagged in ((nine - 0.05, False), (nine + 0.05, True)):
        found = diagnose(report(trapped("a", z, 2.0, slices=9)), [CorrelationTrap()])
        assert bool(found.flags) == is_flagged


def planted(order: int, seed: int, number: int, size: float, mean: float = 0.0) -> nn.Module:
    """Noise with some elements of this size, in units of the size at which one shows in the shuffle."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((order, order))
    at = random.choice(weight.size, number, replace=False)
    weight.flat[at] = size * weight.size**0.25 * random.choice([-1, 1], number)
    layer = nn.Linear(order, order, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight + mean))
    return layer


@pytest.mark.parametrize(("number", "size"), [(100, 0.9), (400, 0.95), (1, 1.5)])
@pytest.mark.parametrize("order", [256, 512])
def test_a_collection_of_moderately_large_elements_is_flagged_at_every_seed(
    order: int, number: int, size: float
) -> None:
    for seed in range(10):
        assert diagnose(analyze(planted(order, seed, number, size))).fired == ("correlation_trap",)


@pytest.mark.parametrize("number", [0, 1])
def test_a_shift_of_the_mean_is_not_a_trap_nor_with_an_element_that_hardly_shows(number: int) -> None:
    for seed in range(10):
        report = analyze(planted(256, seed, number, 1.05, mean=0.5))
        assert (report.layers[0].trap_z or 0) > 100
        assert diagnose(report).flags == ()
