"""`diagnose`: a report or a history in, flags out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from helpers.reports import layer, report

from lightning_ww import Diagnosis, Flag, History, Measurement, Moment, RankCollapse, SkippedLayer, Trigger, diagnose


def test_a_healthy_report_has_no_flags() -> None:
    assert diagnose(report(layer("a", rank_deficit=0.0, trap_z_centred=-1.2, trap_element=0.3))) == Diagnosis()


def test_flags_are_by_trigger_and_each_flagged_layer_is_named_once() -> None:
    lost = SkippedLayer("c", "nonfinite", "2 of 320 elements are NaN or infinite")
    both = layer("a", rank_deficit=0.6, trap_z_centred=9.0, trap_element=2.0)
    found = diagnose(report(both, layer("b", rank_deficit=0.95), skipped=(lost,)))
    assert found.by_trigger == {"nonfinite": ("c",), "rank_collapse": ("a", "b"), "correlation_trap": ("a",)}
    assert found.fired == ("nonfinite", "rank_collapse", "correlation_trap")
    assert found.flagged_layers == ("c", "a", "b")
    assert found.layers("rank_collapse") == ("a", "b")


def test_a_flag_says_where_what_and_what_to_do() -> None:
    assert str(Flag("t", "a.b", "number 3 (threshold 2)", "It may mean this.", "Do that.")) == (
        "`t` at layer `a.b`: number 3 (threshold 2). It may mean this. Do that."
    )
    assert str(Flag("t", "", "number 3 (threshold 2)")) == "`t`: number 3 (threshold 2)."


@dataclass(frozen=True)
class Always(Trigger):
    """Flags whatever it is shown."""

    name = "always"

    def judge(self, history: History[Any], layer: str) -> str | None:
        return "it is there"


def test_a_trigger_of_the_users_own_is_judged_like_ours() -> None:
    found = diagnose(report(layer("a"), layer("b", is_frozen=True)), [Always()])
    assert [str(flag) for flag in found.flags] == ["`always` at layer `a`: it is there."]
    assert found.fired == ("always",)


def test_where_a_model_is_measured_as_a_whole_it_is_judged_as_a_whole() -> None:
    @dataclass
    class Sharp:
        summary: Any
        layers: Any = ()
        skipped: Any = ()

    found = diagnose(Sharp({"sharpness": 3.0}), [Always()])
    assert (found.flagged_layers, found.fired) == (("",), ("always",))


@dataclass(frozen=True)
class Odd(Trigger):
    """Returns what it is given."""

    evidence: Any = None
    those: Any = ("a",)
    fire: Any = True

    def judge(self, history: History[Any], layer: str) -> Any:
        return self.evidence

    def candidates(self, history: History[Any]) -> Any:
        return self.those

    def fires(self, history: History[Any], flagged: Any, candidates: Any) -> Any:
        return self.fire


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        (Odd(False), "`Odd.judge`: expected the evidence for a flag in words, or `None`, but got False."),
        (Odd(""), "`Odd.judge`: expected the evidence for a flag in words, or `None`, but got ''."),
        (Odd(3.4), "`Odd.judge`: expected the evidence for a flag in words, or `None`, but got 3.4."),
        (Odd(those=[1]), "`Odd.candidates`: expected names of layers, but got [1]."),
    ],
)
def test_what_is_no_evidence_is_an_error(trigger: Trigger, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        diagnose(report(layer("a")), [trigger])


def test_the_decision_of_a_trigger_is_true_or_false() -> None:
    assert diagnose(report(layer("a")), [Odd("too much", fire=np.True_)]).fired == ("odd",)
    with pytest.raises(ValueError, match="truth value"):
        diagnose(report(layer("a")), [Odd("too much", fire=np.ones(2))])


ARGUMENTS: list[tuple[tuple[Any, ...], str]] = [
    ((report(layer("a")), RankCollapse()), "`diagnose(triggers=RankCollapse("),
    ((report(layer("a")), ["rank_collapse"]), "expected objects such as `RankCollapse()`, each a `Trigger`."),
    ((3,), "`diagnose(measured=...)`: expected a `WeightReport` or a history, but got a `int`."),
    (
        (History(),),
        "`diagnose(measured=...)`: expected a history with the findings of its last measurement, but got none.",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS)
def test_unfit_arguments_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        diagnose(*arguments)


def test_a_history_is_diagnosed_like_its_last_report() -> None:
    collapsed = report(layer("a", rank_deficit=0.8))
    history: History[Measurement] = History()
    history.append(Measurement.of(Moment(0, 9, 9, 0, False), collapsed), collapsed)
    assert diagnose(history) == diagnose(collapsed)
    assert diagnose(history).fired == ("rank_collapse",)
