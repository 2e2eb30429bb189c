"""What is restored of a state, and what is said of the rest."""

from __future__ import annotations

from typing import Any

from lightning_ww.callbacks._monitor.restoring import Restoring


def test_parts_are_restored_one_by_one() -> None:
    found: dict[str, Any] = {}
    restoring = Restoring({"a": "1", "b": "x", "d": 0, "e": 0})
    assert restoring.part("a", lambda value: found.update(a=int(value)))
    assert not restoring.part("b", lambda value: found.update(b=int(value)))
    assert not restoring.part("c", lambda value: found.update(c=int(value)))
    assert found == {"a": 1}
    unreadable, missing, unknown = restoring.finish()
    assert unreadable.startswith("cannot read `b` of its state in the checkpoint, and begins it anew (ValueError: ")
    assert missing == "finds no `c` in its state in the checkpoint, and begins it anew."
    assert unknown == "ignores `d`, `e` of its state in the checkpoint."


def test_what_is_no_state_has_nothing() -> None:
    assert Restoring([1]).finish() == []
