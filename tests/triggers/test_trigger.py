"""What all triggers have in common: names, which layers they judge, when they fire, what they see of the past."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
from helpers.reports import followed, layer, report

import lightning_ww
from lightning_ww import CorrelationTrap, History, Nonfinite, RankCollapse, SkippedLayer, Trigger, WeightReport
from lightning_ww.triggers.trigger import check_triggers


@dataclass(frozen=True)
class AlphaFell(Trigger):
    """Alpha is below a share of the first."""

    ratio: float = 0.5
    share: float = 0.5
    needs = ("alpha",)

    def judge(self, history: History[Any], layer: str) -> str | None:
        first, now = history.baseline.value(layer, "alpha"), history.value(layer, "alpha")  # type: ignore[union-attr]
        fell = first is not None and now is not None and now < self.ratio * first
        return f"alpha {now:g}, at first {first:g}" if fell else None


def test_names_are_those_of_the_classes() -> None:
    names = [trigger.name for trigger in (Nonfinite(), RankCollapse(), CorrelationTrap(), AlphaFell())]
    assert names == ["nonfinite", "rank_collapse", "correlation_trap", "alpha_fell"]


def test_the_past_is_seen_and_the_share_of_judged_layers_decides() -> None:
    first = report(layer("a", alpha=4.0), layer("b", alpha=4.0), layer("c", alpha=4.0, is_embedding=True))
    second = report(layer("a", alpha=1.0), layer("b", alpha=3.0), layer("c", alpha=1.0, is_embedding=True))
    third = report(layer("a", alpha=3.0), layer("b", alpha=3.0), layer("c", alpha=1.0, is_embedding=True))
    found = followed([first, second, third], AlphaFell())
    assert [one.flagged_layers for one in found] == [(), ("a",), ()]
    assert [one.fired for one in found] == [(), ("alpha_fell",), ()]
    assert found[1].flags[0].evidence == "alpha 1, at first 4"
    assert followed([first, second], AlphaFell(share=0.6))[1].fired == ()


@dataclass(frozen=True)
class Heavy(Trigger):
    """Alpha is below a threshold, with a band."""

    min_short_side: int = 0
    needs = ("alpha",)

    def judge(self, history: History[Any], layer: str) -> str | None:
        alpha = history.value(layer, "alpha")
        return f"alpha {alpha:g}" if alpha is not None and alpha < self.threshold(history, layer, 2.0, 3.0) else None


def test_a_flag_stays_up_to_the_leave_threshold_and_small_layers_are_not_judged() -> None:
    reports = [report(layer("a", alpha=alpha)) for alpha in (2.5, 1.5, 2.5, 3.5, 2.5)]
    assert [bool(found.flags) for found in followed(reports, Heavy())] == [False, True, True, False, False]
    short_side = reports[0].layers[0].M
    assert followed(reports, Heavy(min_short_side=short_side))[1].flags
    assert not followed(reports, Heavy(min_short_side=short_side + 1))[1].flags


@dataclass(frozen=True)
class AlphaOfModel(Trigger):
    """The mean of alpha is below a limit."""

    def judge(self, history: History[Any], layer: str) -> str | None:
        raise AssertionError(layer)


def test_a_model_of_which_no_layer_is_measured_is_not_judged_as_a_whole() -> None:
    nothing = WeightReport((), (SkippedLayer("a", "nonfinite", "NaN"),), 0.0)
    assert lightning_ww.diagnose(nothing, [AlphaOfModel()]).flags == ()


@pytest.mark.parametrize("values", [{"is_embedding": True}, {"is_frozen": True}])
def test_embeddings_and_frozen_layers_are_not_judged(values: dict[str, Any]) -> None:
    reports = [report(layer("a", alpha=4.0, **values)), report(layer("a", alpha=1.0, **values))]
    assert followed(reports, AlphaFell())[1].flags == ()


class Misnamed(AlphaFell):
    """Has no name."""

    name = ""


class Needy(AlphaFell):
    """Lacks a comma."""

    needs = "alpha"  # type: ignore[assignment]


class Leverless(AlphaFell):
    """Has a number as its lever."""

    lever = 3  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        (Misnamed(), "`Misnamed.name = ''`: expected a string."),
        (Needy(), "`Needy.needs = 'alpha'`: expected a tuple of names, such as `('alpha',)`."),
        (Leverless(), "`Leverless.lever = 3`: expected a string."),
    ],
)
def test_an_ill_formed_trigger_is_an_error(trigger: Trigger, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_triggers("diagnose", [trigger])
