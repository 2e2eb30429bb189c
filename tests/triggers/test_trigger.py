"""What all triggers have in common: names, which layers they judge, when they fire, what they see of the past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from helpers.reports import followed, layer, report

from lightning_ww import CorrelationTrap, History, Nonfinite, RankCollapse, Trigger


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


@pytest.mark.parametrize("values", [{"is_embedding": True}, {"is_frozen": True}])
def test_embeddings_and_frozen_layers_are_not_judged(values: dict[str, Any]) -> None:
    reports = [report(layer("a", alpha=4.0, **values)), report(layer("a", alpha=1.0, **values))]
    assert followed(reports, AlphaFell())[1].flags == ()
