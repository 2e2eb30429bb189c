"""One message about several layers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lightning_ww.callbacks._monitor.sentences import about_flags, about_skips, about_time, readable, schedule_lever
from lightning_ww.triggers.diagnosis import Flag


def flags(count: int) -> list[Flag]:
    return [Flag("trap", f"l{i}", "5 > 4", "Too large.", "Lower the rate.") for i in range(count)]


def test_a_message_names_the_first_layers_and_counts_the_others() -> None:
    assert about_flags(6, flags(1)) == "at step 6: `trap` at layer `l0`: 5 > 4. Too large. Lower the rate."
    assert about_flags(6, flags(3)).endswith("Lower the rate. So it is at `l1`, `l2`.")
    assert about_flags(6, flags(9)).endswith("So it is at `l1`, `l2`, `l3`, `l4`, `l5` and 3 more.")


def test_what_is_there_before_the_first_step_is_not_blamed_on_training() -> None:
    assert about_flags(0, flags(1)) == "at step 0: `trap` at layer `l0`: 5 > 4. It is so from the start."


def test_skipped_layers_share_a_sentence() -> None:
    skips: list[Any] = [SimpleNamespace(name=name, sentence="its weight is in codes") for name in "ab"]
    assert about_skips(skips) == "skips layer `a`: its weight is in codes. So it does `b`."


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0347, "35 ms"), (0.9999, "1.0 s"), (1.24, "1.2 s"), (9.97, "10 s"), (59.4, "59 s"), (200, "3 min 20 s")],
)
def test_times_have_a_unit_that_suits_them(seconds: float, said: str) -> None:
    assert readable(seconds) == said


def test_advice_on_time_names_what_can_be_changed() -> None:
    assert about_time(2, 0.5, "`every_n_epochs` (1)", ["lower `a` (3)", "lower `b` (2)"]) == (
        "took 2.0 s for a measurement, longer than the rest of its epoch (500 ms). To measure less often, raise "
        "`every_n_epochs` (1); to measure faster, lower `a` (3) or lower `b` (2)."
    )
    assert about_time(2, 0.5, None, ["lower `a` (3)"]).endswith(
        "for its first measurement, longer than the rest of its epoch (500 ms). To measure faster, lower `a` (3)."
    )
    assert (schedule_lever(2, None), schedule_lever(1, 50)) == ("`every_n_epochs` (2)", "`every_n_train_steps` (50)")
