"""`diagnose`: a report or a history in, flags out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from helpers.reports import layer, report

from lightning_ww import Diagnosis, Flag, History, SkippedLayer, Trigger, diagnose


def test_a_healthy_report_has_no_flags() -> None:
    assert diagnose(report(layer("a", rank_deficit=0.0, trap_z=-1.2, trap_element=0.3))) == Diagnosis()


def test_flags_are_by_trigger_and_each_flagged_layer_is_named_once() -> None:
    lost = SkippedLayer("c", "nonfinite", "2 of 320 elements are NaN or infinite")
    both = layer("a", rank_deficit=0.6, trap_z=9.0, trap_element=2.0)
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
