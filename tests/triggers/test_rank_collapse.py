"""`RankCollapse`: thresholds, shares and words."""

from __future__ import annotations

import re
from typing import Any

import pytest
from helpers.reports import followed, layer, report

from lightning_ww import LayerReport, RankCollapse, diagnose


def collapsed(name: str, share: float, **values: Any) -> LayerReport:
    return layer(name, rank_deficit=share, **values)


def test_it_has_hysteresis() -> None:
    reports = [report(collapsed("a", share)) for share in (0.45, 0.5, 0.45, 0.4, 0.39, 0.45)]
    seen = [bool(found.flags) for found in followed(reports, RankCollapse())]
    assert seen == [False, True, True, True, False, False]


def test_a_flag_that_is_held_says_down_to_where() -> None:
    held = followed([report(collapsed("a", deficit)) for deficit in (0.0, 0.6, 0.45)], RankCollapse())[-1]
    assert "rank_deficit 0.45 (threshold 0.5, cleared below 0.4)" in str(held.flags[0])


def test_a_layer_that_is_not_flagged_makes_nothing_fire() -> None:
    trigger = RankCollapse(alone=0.2)
    layers = [collapsed(name, 0.0) for name in "abcdef"]
    assert diagnose(report(*layers, collapsed("g", 0.3)), [trigger]).fired == ()
    assert diagnose(report(*layers, collapsed("g", 0.6)), [trigger]).fired == ("rank_collapse",)


@pytest.mark.parametrize("values", [{"is_embedding": True}, {"is_frozen": True}, {"M": 15}])
def test_ineligible_layers_are_never_flagged(values: dict[str, Any]) -> None:
    assert diagnose(report(collapsed("a", 1.0, **values))).flags == ()


def test_it_fires_with_a_quarter_of_the_layers_or_one_that_is_gone() -> None:
    fine = [collapsed(name, 0.0) for name in "abcd"]
    assert diagnose(report(*fine, collapsed("e", 0.6))).fired == ()
    assert diagnose(report(*fine[:3], collapsed("e", 0.6))).fired == ("rank_collapse",)
    assert diagnose(report(*fine, collapsed("e", 0.9))).fired == ("rank_collapse",)


def test_it_says_its_number_threshold_meaning_and_lever() -> None:
    found = diagnose(report(collapsed("a.b", 0.62)))
    assert str(found.flags[0]) == (
        "`rank_collapse` at layer `a.b`: rank_deficit 0.62 (threshold 0.5): that share of its singular values is "
        "at most a tenth of what the same elements in random order have. Often over-regularization (weight decay, L2), "
        "and often harmless. Lower it if validation suffers."
    )


def test_thresholds_are_arguments() -> None:
    assert diagnose(report(collapsed("a", 0.2)), [RankCollapse(enter=0.1, leave=0.05)]).flagged_layers == ("a",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"enter": "x"}, "`RankCollapse(enter='x')`: expected a number from 0 to 1."),
        ({"alone": 1.5}, "`RankCollapse(alone=1.5)`: expected a number from 0 to 1."),
        ({"leave": 0.6}, "`RankCollapse(leave=0.6)`: expected at most `enter`, which is 0.5."),
        ({"min_short_side": 0}, "`RankCollapse(min_short_side=0)`: expected an integer of at least 1."),
    ],
)
def test_thresholds_out_of_their_domain(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RankCollapse(**arguments)
