"""The triggers of a monitor fit it, also those that `SpectralEarlyStopping` hands over."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from helpers.fits import fit
from helpers.networks import Classifier, quiet_trainer
from pytorch_lightning import Callback

from lightning_ww import Diagnosis, Flag, History, Nonfinite, RankCollapse, Trigger
from lightning_ww.callbacks import CurvatureMonitor, SpectralEarlyStopping, WeightSpectrumMonitor
from lightning_ww.callbacks._monitor.triggers import are_equal, checked_triggers, flag_scalars, others_of, with_trigger


@dataclass(frozen=True)
class LowSharpness(Trigger):
    """The sharpness is below a limit after the start."""

    limit: float = 1e9
    needs = ("sharpness",)

    def judge(self, history: History[Any], layer: str) -> str | None:
        sharpness = history.value(layer, "sharpness")
        is_low = history[-1].step > 0 and sharpness is not None and sharpness < self.limit
        return f"sharpness {sharpness:.2g}" if is_low else None


def test_what_they_need_has_to_be_measured() -> None:
    with pytest.raises(ValueError, match=re.escape("`M(triggers=[LowSharpness(limit=1)])` needs 'sharpness'")):
        checked_triggers("M", [Nonfinite(), LowSharpness(limit=1)], ["alpha"])
    assert checked_triggers("M", [LowSharpness()], ["sharpness"]) == (LowSharpness(),)


def test_a_trigger_takes_the_place_of_a_default_one_and_not_of_a_given_one() -> None:
    usual = (Nonfinite(), RankCollapse())
    stricter = RankCollapse(enter=0.6)
    assert with_trigger("M", usual, stricter, ["rank_deficit"], is_fixed=False) == (Nonfinite(), stricter)
    assert with_trigger("M", usual, RankCollapse(), ["rank_deficit"], is_fixed=True) == usual
    with pytest.raises(ValueError, match="and cannot raise RankCollapse"):
        with_trigger("M", usual, stricter, ["rank_deficit"], is_fixed=True)


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
    assert curvature.diagnosis.fired == ("low_sharpness",)
    assert curvature.triggers == ()  # it was lent for this fit
    assert [one.name for one in weights.triggers] == ["nonfinite", "rank_collapse", "correlation_trap"]


@pytest.mark.filterwarnings("ignore:.*`correlation_trap` at layer")
@pytest.mark.filterwarnings("ignore:.*`rank_collapse` at layer")
def test_an_object_takes_the_place_of_each_monitors_default_and_nothing_else_stops() -> None:
    class Collapsed(Classifier):
        def on_train_batch_end(self, *_: Any) -> None:
            self.hidden.weight.data[4:] = 0

    strict = RankCollapse(enter=1.0, leave=1.0, alone=1.0)  # a deficit of 1 is that of a zero weight
    first, second = WeightSpectrumMonitor(log_key_prefix="a/"), WeightSpectrumMonitor(log_key_prefix="b/")
    stopping = SpectralEarlyStopping(stop_on=[strict], patience=1, min_epochs=0)
    trainer = fit(first, second, stopping, model=Collapsed(), max_epochs=3)
    assert trainer.current_epoch == 3
    assert "rank_collapse" not in {*first.history[-1].flags, *second.history[-1].flags}
    assert RankCollapse() in first.triggers
    assert RankCollapse() in second.triggers
    again = SpectralEarlyStopping(stop_on=["rank_collapse"], patience=1, min_epochs=0)
    with pytest.warns(UserWarning, match="`rank_collapse` at layer `hidden`"):  # with the monitors' own thresholds
        assert fit(first, second, again, model=Collapsed(), max_epochs=3).current_epoch == 1


@dataclass(frozen=True)
class WithArray(Trigger):
    """Cannot be compared."""

    limits: Any = field(default_factory=lambda: np.ones(2))
    fire: Any = False

    def judge(self, history: History[Any], layer: str) -> str | None:
        return "a flag"

    def fires(self, history: History[Any], flagged: Any, candidates: Any) -> Any:
        return self.fire


def test_triggers_that_cannot_be_compared_are_equal_only_to_themselves() -> None:
    first, second = WithArray(), WithArray()
    assert are_equal(first, first)
    assert not are_equal(first, second)
    assert are_equal(RankCollapse(), RankCollapse())


@pytest.mark.filterwarnings("ignore:.*`with_array` at layer")
def test_a_decision_that_is_none_is_warned_of_and_the_run_goes_on() -> None:
    monitor = WeightSpectrumMonitor(triggers=[WithArray(fire=np.ones(2))])
    with pytest.warns(UserWarning, match=r"could not judge `with_array` at step 0 \(ValueError: The truth value"):
        trainer = fit(monitor, model=Classifier(), max_epochs=2)
    assert trainer.current_epoch == 2
    assert monitor.history[-1].flags == {}


def test_two_different_triggers_of_equal_name_cannot_both_be_added() -> None:
    first = SpectralEarlyStopping(stop_on=[RankCollapse(enter=0.6)])
    second = SpectralEarlyStopping(stop_on=[RankCollapse(enter=0.9)], patience=2)
    monitor = WeightSpectrumMonitor()
    with pytest.raises(
        ValueError, match=r"`SpectralEarlyStopping\(stop_on=\[RankCollapse\(enter=0.9.* has RankCollapse"
    ):
        fit(monitor, first, second)
    monitor.drop_trigger(RankCollapse(enter=0.6))
    assert RankCollapse() in monitor.triggers


def test_callbacks_that_only_look_like_monitors_are_left_alone() -> None:
    class Other(Callback):
        GROUP, history = "other", ()

    monitor = WeightSpectrumMonitor()
    assert others_of(monitor, quiet_trainer(callbacks=[monitor, Other()])) == {}


def test_other_monitors_are_seen_by_group_and_by_prefix_where_it_differs() -> None:
    mine, twin = WeightSpectrumMonitor(log_key_prefix="a/"), WeightSpectrumMonitor(log_key_prefix="b/")
    near, far = CurvatureMonitor(log_key_prefix="a/"), CurvatureMonitor(log_key_prefix="b/")
    trainer = quiet_trainer(callbacks=[mine, twin, near, far])
    assert list(others_of(mine, trainer)) == ["b/ww", "curvature", "b/curvature"]
    assert others_of(mine, trainer)["curvature"] is near.history


def test_an_object_that_no_monitor_can_raise_is_an_error_before_training() -> None:
    with pytest.raises(ValueError, match="needs 'sharpness', which is not measured"):
        fit(WeightSpectrumMonitor(), SpectralEarlyStopping(stop_on=LowSharpness()))
