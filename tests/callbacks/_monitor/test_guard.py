"""An error inside a measurement stays there."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_ww.callbacks._monitor.guard import Guard


class Holder:
    """In place of a Trainer."""

    is_global_zero, global_step = True, 3


TRAINER: Any = Holder()


def fail() -> None:
    raise OSError("disk full")


def test_it_warns_once_per_action_and_kind_of_error() -> None:
    guard = Guard("Monitor", "warn")
    with pytest.warns(UserWarning, match=r"`Monitor` could not measure at step 3 \(OSError: disk full\)"):
        assert guard.run(TRAINER, fail) is None
    assert guard.run(TRAINER, fail) is None  # warnings are errors here
    with pytest.warns(UserWarning, match="could not log to A at step 3"):
        assert guard.run(TRAINER, fail, "log to A") is None
    assert guard.run(TRAINER, lambda: 7) == 7


def test_it_raises_where_it_is_told_to() -> None:
    with pytest.raises(OSError, match="disk full"):
        Guard("Monitor", "raise").run(TRAINER, fail)
    with pytest.raises(OSError, match="disk full"):
        Guard("Monitor", "warn").run(TRAINER, fail, fatal=(OSError,))
    with pytest.warns(UserWarning, match="disk full"):
        Guard("Monitor", "raise").only_warning().run(TRAINER, fail)


def test_what_was_warned_of_is_remembered_across_a_resume() -> None:
    first, second = Guard("Monitor", "warn"), Guard("Monitor", "warn")
    with pytest.warns(UserWarning, match="disk full"):
        first.run(TRAINER, fail)
    second.load_state_dict(first.state_dict())
    second.run(TRAINER, fail)  # warnings are errors here


def test_an_action_without_a_result_succeeds_unless_it_raises() -> None:
    guard = Guard("Monitor", "warn")
    assert guard.succeeds(TRAINER, lambda: None, "draw")
    with pytest.warns(UserWarning, match="could not draw at step 3"):
        assert not guard.succeeds(TRAINER, fail, "draw")
    with pytest.raises(OSError, match="disk full"):
        guard.succeeds(TRAINER, fail, "draw", (OSError,))
