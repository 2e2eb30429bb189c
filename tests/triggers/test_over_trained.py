"""`OverTrained`: thresholds, judged layers and words."""

from __future__ import annotations

import re
from typing import Any

import pytest
from helpers.reports import followed, layer, report

from lightning_ww import LayerReport, OverTrained, diagnose

END = {"alpha": 3.0}


def heavy(name: str, alpha: float = 1.6, **values: Any) -> LayerReport:
    tail: dict[str, Any] = {"alpha_stderr": 0.1, "ks_distance": 0.05, "num_tail": 40, "M": 60}
    return layer(name, alpha=alpha, **(tail | values))


def judged(*middle: LayerReport) -> Any:
    return diagnose(report(layer("first", **END), *middle, layer("last", **END)), [OverTrained()])


@pytest.mark.parametrize(
    ("values", "is_flagged"),
    [
        ({}, True),
        ({"alpha": 1.79}, True),
        ({"alpha": 1.81}, False),  # not by two standard errors
        ({"alpha_stderr": 0.21}, False),
        ({"ks_distance": 0.15}, False),
        ({"num_tail": 19}, False),
        ({"M": 49}, False),
        ({"is_embedding": True}, False),
        ({"is_frozen": True}, False),
        ({"alpha": None}, False),
    ],
)
def test_a_very_heavy_tail_that_is_well_fitted_is_flagged(values: dict[str, Any], is_flagged: bool) -> None:
    assert bool(judged(heavy("a", **values)).flags) == is_flagged


def test_the_first_and_the_last_layer_are_not_judged() -> None:
    assert diagnose(report(*map(heavy, "abc")), [OverTrained()]).layers("over_trained") == ("b",)
    assert diagnose(report(*map(heavy, "ab")), [OverTrained()]).flags == ()


def test_it_fires_with_half_of_the_judged_layers_and_gives_the_number() -> None:
    assert judged(heavy("a"), heavy("b", alpha=3.0), heavy("c", alpha=3.0)).fired == ()
    fired = judged(heavy("a"), heavy("b", alpha=3.0))
    assert fired.fired == ("over_trained",)
    assert "alpha 1.60 ± 0.10 over 40 eigenvalues (threshold 2 by two standard errors)" in str(fired.flags[0])


def test_a_pretrained_network_has_it_from_the_start() -> None:
    network = report(layer("first", **END), heavy("a"), layer("last", **END))
    assert [bool(found.flags) for found in followed([network, network], OverTrained())] == [False, False]


@pytest.mark.parametrize("values", [{"enter": -1.0}, {"most_distance": 2.0}, {"share": 1.5}, {"fewest": -1}])
def test_unfit_thresholds_are_refused(values: dict[str, Any]) -> None:
    (name, value), *_ = values.items()
    with pytest.raises(ValueError, match=re.escape(f"OverTrained({name}={value!r})")):
        OverTrained(**values)
