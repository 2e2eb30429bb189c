"""`CorrelationTrap`: thresholds, shares and words."""

from __future__ import annotations

import re
from typing import Any

import pytest
from helpers.reports import followed, layer, report

from lightning_ww import CorrelationTrap, LayerReport, diagnose
from lightning_ww.weights.marchenko_pastur import tracy_widom_threshold


def trapped(name: str, z: float, element: float, **values: Any) -> LayerReport:
    return layer(name, trap_z=z, trap_element=element, **values)


def test_it_asks_for_a_large_element_and_has_hysteresis() -> None:
    # a mean shift alone; both; z falls within its band; the element below its own; both again but not yet enough
    rows = ((30, 0.9), (3.3, 1.0), (2.1, 0.81), (2.1, 0.79), (3.2, 1.5), (4, 1), (1.9, 3))
    reports = [report(trapped("a", z, element)) for z, element in rows]
    seen = [bool(found.flags) for found in followed(reports, CorrelationTrap())]
    assert seen == [False, True, True, False, False, True, False]


def test_a_flag_that_is_held_says_down_to_where() -> None:
    held = followed([report(trapped("a", *values)) for values in ((0, 0.1), (5, 1), (2.5, 0.9))], CorrelationTrap())[-1]
    assert "(threshold 1, cleared below 2 and 0.8)" in str(held.flags[0])


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
        "`correlation_trap` at layer `a`: trap_z 12.3 (threshold 3.27), largest element 1.50 of the visible size "
        "(threshold 1), mean shift 0.25. A few elements dominate it. Often the learning rate is too large, or the data "
        "hold an outlier."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"enter": -1}, "`CorrelationTrap(enter=-1)`: expected a number of at least 0."),
        ({"leave_element": 2}, "`CorrelationTrap(leave_element=2)`: expected at most `enter_element`, which is 1.0."),
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
