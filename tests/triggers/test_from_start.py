"""What stands from the start is no flag until it has clearly grown, or comes back; what grows out of zero is not judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from helpers.reports import followed, layer, report

from lightning_ww import CorrelationTrap, History, RankCollapse, Trigger, diagnose


def states(numbers: Sequence[float], trigger: Trigger, metric: str, **more: Any) -> str:
    """What is said at each measurement of a layer with these numbers: (s)tands from the start, (f)lag, or nothing (.)."""
    said = followed([report(layer("a", **{metric: number}, **more)) for number in numbers], trigger)
    return "".join("s" if one.from_start else "f" if one.flags else "." for one in said)


@pytest.mark.parametrize(
    ("deficits", "expected"),
    [
        ([0.5, 0.52, 0.5, 0.45], "ssss"),  # held down to the leave threshold
        ([0.5, 0.56, 0.57], "ssf"),  # u 1, 1.6, 1.7: worse at two in a row
        ([0.5, 0.56, 0.5, 0.56, 0.5], "sssss"),
        ([0.5, 0.3, 0.5], "s.f"),  # it had gone, and came back
        ([0.3, 0.5, 0.5], ".ff"),
        ([0.8, 0.88, 0.89], "sss"),  # u 4, and 4.9: by less than a quarter
        ([0.8, 0.91, 0.91], "ssf"),
    ],
)
def test_rank_collapse_from_the_start(deficits: list[float], expected: str) -> None:
    assert states(deficits, RankCollapse(), "rank_deficit") == expected


@pytest.mark.parametrize("first", [8.0, 115.0, 866.0])
def test_a_trap_from_the_start_may_drift_by_three_percent(first: float) -> None:
    drifting = [first * (1 + 0.03 * k / 10) for k in range(11)]
    assert states(drifting, CorrelationTrap(), "trap_z_centred", trap_element=2.0) == "s" * 11


@pytest.mark.parametrize(("first", "later"), [(8.0, 12.0), (115.0, 330.0), (866.0, 4100.0)])
def test_a_trap_from_the_start_that_has_clearly_grown_is_a_flag(first: float, later: float) -> None:
    assert states([first, later, later], CorrelationTrap(), "trap_z_centred", trap_element=2.0) == "ssf"


def test_a_trigger_without_severity_flags_what_comes_back() -> None:
    @dataclass(frozen=True)
    class Steep(Trigger):
        needs = ("alpha",)

        def judge(self, history: History[Any], layer: str) -> str | None:
            alpha = history.value(layer, "alpha") or 0.0
            return f"alpha {alpha:.1f}" if alpha > 8 else None

    assert states([9, 90, 900, 7, 9], Steep(), "alpha") == "sss.f"


def test_a_layer_that_was_not_measured_in_between_still_stands_from_the_start() -> None:
    there, gone = (
        report(layer("a", rank_deficit=0.6), layer("b", rank_deficit=0.0)),
        report(layer("b", rank_deficit=0.0)),
    )
    assert [bool(one.from_start) for one in followed([there, gone, there], RankCollapse())] == [True, False, True]


def test_a_report_on_its_own_has_no_start() -> None:
    assert diagnose(report(layer("a", rank_deficit=0.6))).fired == ("rank_collapse",)


def test_what_stands_from_the_start_does_not_fire_with_the_others() -> None:
    start = [layer("a", rank_deficit=0.95), *(layer(name, rank_deficit=0.0) for name in "bcde")]
    later = [
        layer("a", rank_deficit=0.95),
        layer("b", rank_deficit=0.6),
        *(layer(name, rank_deficit=0.0) for name in "cde"),
    ]
    last = followed([report(*start), report(*later)], RankCollapse())[-1]
    assert last.layers("rank_collapse") == ("b",)
    assert last.layers_from_start == {"rank_collapse": ("a",)}
    assert last.fired == ()  # one of five is less than a quarter


@pytest.mark.parametrize(
    ("deficits", "expected"),
    [
        ([1.0, 1.0, 1.0], "..."),  # all zero: it has not moved
        ([1.0, 0.9, 0.8, 0.7, 0.6], "....."),
        ([1.0, 1.0, 0.9, 0.895], "...f"),  # a standstill
        ([1.0, 0.8, 0.85, 0.7], "..ff"),  # a rise, and judged from then on
        ([1.0, 0.8, 1.0], "..f"),  # all zero again
        ([0.99, 0.9], "ss"),  # not zero at the start
        ([0.0, 1.0], ".f"),  # dead later
    ],
)
def test_a_factor_that_grows_out_of_zero_is_judged_from_its_first_standstill_on(
    deficits: list[float], expected: str
) -> None:
    assert states(deficits, RankCollapse(), "rank_deficit") == expected


def test_a_factor_of_a_low_rank_product_is_not_judged() -> None:
    assert states([0.0, 0.9], RankCollapse(), "rank_deficit", is_factor=True) == ".."
