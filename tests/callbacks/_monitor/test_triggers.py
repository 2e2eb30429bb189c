"""The triggers of a monitor fit it, also those that `SpectralEarlyStopping` hands over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
from helpers.fits import fit
from helpers.networks import Classifier

from lightning_ww import Diagnosis, Flag, History, Nonfinite, RankCollapse, Trigger
from lightning_ww.callbacks import CurvatureMonitor, SpectralEarlyStopping, WeightSpectrumMonitor
from lightning_ww.callbacks._monitor.triggers import checked_triggers, flag_scalars, with_trigger


@dataclass(frozen=True)
class LowSharpness(Trigger):
    """The sharpness is below a limit."""

    limit: float = 1e9
    needs = ("sharpness",)

    def judge(self, history: History[Any], layer: str) -> str | None:
        sharpness = history[-1].summary["sharpness"]
        return f"sharpness {sharpness:.2g}" if sharpness < self.limit else None


def test_what_they_need_has_to_be_measured() -> None:
    message = "`M(triggers=[Nonfinite(), LowSharpness(limit=1)])` needs 'sharpness'"
    with pytest.raises(ValueError, match=re.escape("`M(triggers=[LowSharpness(limit=1)])` needs 'sharpness'")):
        checked_triggers("M", [Nonfinite(), LowSharpness(limit=1)], ["alpha"])
    del message
    assert checked_triggers("M", [LowSharpness()], ["sharpness"]) == (LowSharpness(),)


def test_a_trigger_takes_the_place_of_a_default_one_and_not_of_a_given_one() -> None:
    usual = (Nonfinite(), RankCollapse())
    stricter = RankCollapse(enter=0.6)
    assert with_trigger("M", usual, stricter, ["rank_deficit"], are_given=False) == (Nonfinite(), stricter)
    assert with_trigger("M", usual, RankCollapse(), ["rank_deficit"], are_given=True) == usual
    with pytest.raises(ValueError, match="and cannot raise RankCollapse"):
        with_trigger("M", usual, stricter, ["rank_deficit"], are_given=True)


def test_flags_are_counted_and_told_by_layer() -> None:
    diagnosis = Diagnosis((Flag("nonfinite", "a", "…"), Flag("nonfinite", "b", "…")))
    assert flag_scalars([Nonfinite(), RankCollapse()], diagnosis, ["a", "c"]) == {
        "flags/nonfinite": 2.0,
        "flags.nonfinite/a": 1.0,
        "flags.nonfinite/c": 0.0,
        "flags/rank_collapse": 0.0,
        "flags.rank_collapse/a": 0.0,
        "flags.rank_collapse/c": 0.0,
    }


@pytest.mark.filterwarnings("ignore:.*`low_sharpness`")
def test_an_object_in_stop_on_is_raised_by_the_monitor_that_measures_what_it_needs() -> None:
    weights, curvature = WeightSpectrumMonitor(), CurvatureMonitor(every_n_epochs=1, num_steps=2)
    stopping = SpectralEarlyStopping(stop_on=[LowSharpness()], patience=2, min_epochs=0)
    trainer = fit(stopping, weights, curvature, model=Classifier(), max_epochs=9)
    assert trainer.current_epoch == 2
    assert curvature.triggers == (LowSharpness(),)
    assert [one.name for one in weights.triggers] == ["nonfinite", "rank_collapse", "correlation_trap"]


def test_an_object_that_no_monitor_can_raise_is_an_error_before_training() -> None:
    with pytest.raises(ValueError, match="needs 'sharpness', which is not measured"):
        fit(WeightSpectrumMonitor(), SpectralEarlyStopping(stop_on=LowSharpness()))
