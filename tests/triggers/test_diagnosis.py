"""Flags rise, hold and fall at their thresholds, on the layers that are eligible, and fire by their shares."""

from __future__ import annotations

import re
from typing import Any

import pytest
from helpers.reports import layer

from lightning_ww import LayerReport, SkippedLayer, WeightReport
from lightning_ww.triggers.diagnosis import Diagnosis, FlagThresholds, diagnose


def report(*layers: LayerReport, skipped: tuple[SkippedLayer, ...] = ()) -> WeightReport:
    return WeightReport(layers, skipped, 0.0)


def collapsed(name: str, share: float, **values: Any) -> LayerReport:
    return layer(name, rank_deficit=share, **values)


def trapped(name: str, z: float, element: float, **values: Any) -> LayerReport:
    return layer(name, trap_z=z, trap_element=element, **values)


def test_a_healthy_report_has_no_flags() -> None:
    assert diagnose(report(layer("a", rank_deficit=0.0, trap_z=-1.2, trap_element=0.3))) == Diagnosis()


def test_nonfinite_comes_from_the_skipped_layers_and_fires_with_one() -> None:
    lost = SkippedLayer("a", "nonfinite", "2 of 320 elements are NaN or infinite")
    other = SkippedLayer("b", "one_axis", "…")
    found = diagnose(report(layer("c"), skipped=(lost, other)))
    assert found.by_trigger == {"nonfinite": ("a",), "rank_collapse": (), "correlation_trap": ()}
    assert found.fired == ("nonfinite",)
    assert str(found.flags[0]) == (
        "`nonfinite` at layer `a`: 2 of 320 elements are NaN or infinite. "
        "Training has diverged: lower the learning rate, or clip gradients."
    )


def test_rank_collapse_has_hysteresis() -> None:
    before = Diagnosis()
    seen = []
    for share in (0.45, 0.5, 0.45, 0.4, 0.39, 0.45):
        before = diagnose(report(collapsed("a", share)), before.by_trigger)
        seen.append(bool(before.flags))
    assert seen == [False, True, True, True, False, False]


def test_a_flag_that_is_held_says_down_to_where() -> None:
    held = diagnose(report(collapsed("a", 0.45)), {"rank_collapse": ("a",)})
    assert "rank_deficit 0.45 (threshold 0.5, held down to 0.4)" in str(held.flags[0])
    held = diagnose(report(trapped("a", 2.5, 0.9)), {"correlation_trap": ("a",)})
    assert "(threshold 1, held down to 2 and 0.8)" in str(held.flags[0])


def test_a_layer_that_is_not_flagged_makes_nothing_fire() -> None:
    limits = FlagThresholds(rank_deficit_alone=0.2)
    layers = [collapsed(name, 0.0) for name in "abcdef"]
    assert diagnose(report(*layers, collapsed("g", 0.3)), thresholds=limits).fired == ()
    assert diagnose(report(*layers, collapsed("g", 0.6)), thresholds=limits).fired == ("rank_collapse",)


def test_correlation_trap_asks_for_a_large_element_and_has_hysteresis() -> None:
    before = Diagnosis()
    seen = []
    # a mean shift alone; both; z falls within its band; the element below its own; both again but not yet enough
    for z, element in ((30, 0.9), (3.3, 1.0), (2.1, 0.81), (2.1, 0.79), (3.2, 1.5), (4, 1), (1.9, 3)):
        before = diagnose(report(trapped("a", z, element)), before.by_trigger)
        seen.append(bool(before.flags))
    assert seen == [False, True, True, False, False, True, False]


@pytest.mark.parametrize("values", [{"is_embedding": True}, {"is_frozen": True}, {"M": 15}])
def test_ineligible_layers_are_never_flagged(values: dict[str, Any]) -> None:
    bad = layer("a", rank_deficit=1.0, trap_z=99.0, trap_element=9.0, **values)
    assert diagnose(report(bad)) == Diagnosis()


def test_rank_collapse_fires_with_a_quarter_of_the_layers_or_one_that_is_gone() -> None:
    fine = [collapsed(name, 0.0) for name in "abcd"]
    assert diagnose(report(*fine, collapsed("e", 0.6))).fired == ()
    assert diagnose(report(*fine[:3], collapsed("e", 0.6))).fired == ("rank_collapse",)
    assert diagnose(report(*fine, collapsed("e", 0.9))).fired == ("rank_collapse",)


def test_correlation_trap_fires_with_half_of_the_layers() -> None:
    fine = [trapped(name, 0.0, 0.1) for name in "ab"]
    assert diagnose(report(*fine, trapped("c", 5, 2))).fired == ()
    assert diagnose(report(fine[0], trapped("c", 5, 2))).fired == ("correlation_trap",)


def test_a_flag_says_its_number_threshold_and_meaning() -> None:
    found = diagnose(report(collapsed("a.b", 0.62)))
    assert str(found.flags[0]) == (
        "`rank_collapse` at layer `a.b`: rank_deficit 0.62 (threshold 0.5): that share of its singular values is "
        "at most a tenth of what the same elements in random order have. Often over-regularisation (weight decay, L2): "
        "lower it if validation suffers; often harmless."
    )
    found = diagnose(report(trapped("a", 12.34, 1.5, trap_mean_shift=0.25)))
    assert str(found.flags[0]) == (
        "`correlation_trap` at layer `a`: trap_z 12.3 (threshold 3.27), largest element 1.50 of the visible size "
        "(threshold 1), mean shift 0.25. A few elements dominate it: often too large a learning rate, or an outlier in "
        "the data."
    )


def test_thresholds_are_arguments() -> None:
    strict = FlagThresholds(rank_deficit_enter=0.1, rank_deficit_leave=0.05)
    assert diagnose(report(collapsed("a", 0.2)), thresholds=strict).flagged_layers == ("a",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trap_z_enter": -1}, "`FlagThresholds(trap_z_enter=-1)`: expected a number that is not negative."),
        (
            {"rank_deficit_enter": "x"},
            "`FlagThresholds(rank_deficit_enter='x')`: expected a number that is not negative.",
        ),
        (
            {"rank_deficit_leave": 0.6},
            "`FlagThresholds(rank_deficit_leave=0.6)`: expected at most `rank_deficit_enter`, which is 0.5.",
        ),
    ],
)
def test_thresholds_out_of_their_domain(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        FlagThresholds(**arguments)
