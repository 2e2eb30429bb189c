"""What is remembered of a run: bounded, plain, with its first measurement for ever."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.reports import layer, report

from lightning_ww import History, Measurement, Moment, SkippedLayer
from lightning_ww._columns import packed


def measurement(
    number: int, alpha: float | None = 2.0, *, step: int | None = None, is_baseline: bool = False
) -> Measurement:
    step = number if step is None else step
    moment = Moment(number, step, step, number, is_baseline or number == 0)
    found = report(layer("a", alpha=alpha), layer("b"), skipped=(SkippedLayer("c", "one_axis", "…"),))
    return Measurement.of(moment, found, ["alpha", "sv_min"])


def filled(count: int, most: int = 1000) -> History[Measurement]:
    history = History[Measurement](most)
    for number in range(count):
        history.append(measurement(number))
    return history


def test_a_measurement_keeps_the_summary_and_a_table() -> None:
    kept = measurement(3, alpha=2.5)
    assert (kept.number, kept.step, kept.epoch, kept.is_baseline) == (3, 3, 3, False)
    assert kept.summary == {"alpha": 2.5}
    assert kept.value("a", "alpha") == 2.5
    assert kept.value("b", "alpha") is None
    assert kept.value("c", "alpha") is None  # a layer that was skipped
    assert kept.value("a", "entropy") is None  # a metric that was not kept
    assert math.isnan(float(kept.values[1, 0]))


def test_the_numbers_of_the_model_as_a_whole_are_those_of_the_layer_without_a_name() -> None:
    measurement = Measurement(Moment(0, 0, 0, 0, True), {"sharpness": 2.0})
    assert measurement.value("", "sharpness") == 2.0
    assert measurement.value("", "trace") is None
    history: History[Measurement] = History()
    history.append(measurement)
    assert history.value("", "sharpness") == 2.0


def test_of_too_many_the_oldest_are_dropped_and_the_baseline_is_kept() -> None:
    history = filled(5, most=2)
    assert [past.number for past in history] == [3, 4]
    assert history.baseline is not None
    assert history.baseline.number == 0
    assert history.next_number == 5


def test_a_baseline_at_a_step_that_is_there_is_not_added_again() -> None:
    history = filled(3)
    history.append(measurement(3, step=2, is_baseline=True))
    assert [past.step for past in history] == [0, 1, 2]
    history.append(measurement(3, step=7, is_baseline=True))
    assert [past.step for past in history] == [0, 1, 2, 7]


def test_the_state_is_read_with_weights_only_and_gives_the_same_back(tmp_path: Path) -> None:
    history = History[Measurement](2)
    for number in range(3):
        history.append(
            measurement(number).judged(
                {"alpha": 1.0}, {"rank_collapse": ("a",)}, ("rank_collapse",), {"correlation_trap": ("b",)}
            )
        )
    torch.save(history.state_dict(), tmp_path / "state.pt")
    again = History[Measurement](2)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [past.moment for past in again] == [past.moment for past in history]
    assert [past.flags for past in again] == [{"rank_collapse": ("a",)}] * 2
    assert again[-1].fired == ("rank_collapse",)
    assert again[-1].from_start == {"correlation_trap": ("b",)}
    assert again.baseline is not None
    assert again.baseline.number == 0
    for one, other in zip(again, history, strict=True):
        torch.testing.assert_close(one.values, other.values, rtol=0, atol=0, equal_nan=True)


def test_triggers_see_the_measurement_at_hand_its_findings_and_no_later_ones_of_others() -> None:
    others = {"curvature": filled(9)}
    found = report(layer("a", alpha=3.0, entropy=0.5))
    now = Measurement.of(Moment(2, 4, 4, 2, False), found, ["alpha"])
    history = filled(2)
    seen = history.up_to(now, found, others)
    assert [past.step for past in seen] == [0, 1, 4]
    assert len(history) == 2
    assert seen.value("a", "entropy") == 0.5  # also what is not kept
    assert seen.value("b", "alpha") is None
    assert [past.step for past in seen.others["curvature"]] == [0, 1, 2, 3, 4]
    assert len(others["curvature"]) == 9


def test_a_flag_that_stood_before_is_remembered() -> None:
    history = History[Measurement]()
    history.append(measurement(0).judged({}, {"t": ("a",)}, (), {}))
    found = report(layer("a"), layer("b"))
    seen = history.up_to(Measurement.of(Moment(1, 1, 1, 1, False), found), found)
    assert (seen.was_flagged("t", "a"), seen.was_flagged("t", "b"), seen.was_flagged("u", "a")) == (True, False, False)


def test_a_table_has_a_row_a_layer_and_of_a_whole_model_one() -> None:
    pytest.importorskip("pandas")
    table = filled(2).to_pandas()
    assert list(table.columns) == ["step", "epoch", "layer", "alpha", "sv_min", "flags"]
    assert len(table) == 4
    whole = History[Measurement]()
    whole.append(Measurement(Moment(0, 0, 0, 0, True), {"sharpness": 3.0}))
    assert whole.to_pandas().to_dict("records") == [{"step": 0, "epoch": 0, "sharpness": 3.0}]


def test_a_long_history_is_packed_once_and_comes_back_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    history = filled(460, most=350)  # so that the first chunk is not whole
    first = history.state_dict()
    packs: list[int] = []

    def counted(states: Sequence[Any]) -> Any:
        packs.append(len(states))
        return packed(states)

    monkeypatch.setattr("lightning_ww.history.packed", counted)
    history.append(measurement(460))
    again = history.state_dict()
    assert packs == [89, 61]  # the chunk that lost its oldest, and the last one
    assert all(one is other for one, other in zip(first["measurements"][1:3], again["measurements"][1:3], strict=True))
    restored = History[Measurement](350)
    restored.load_state_dict(again)
    assert [past.state_dict() | {"values": None} for past in restored] == [
        past.state_dict() | {"values": None} for past in history
    ]
    assert all(
        torch.equal(one.values.nan_to_num(-1), other.values.nan_to_num(-1))
        for one, other in zip(restored, history, strict=True)
    )
