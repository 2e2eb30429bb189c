"""Checks of triggers' thresholds: each is in its domain, and the leave threshold is not above the enter threshold."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_ww import _checks
from lightning_ww.triggers.trigger import Trigger


def check_band(call: str, trigger: Trigger, names: Sequence[str], *, most: float | None = None) -> None:
    """Raise if one of these thresholds is not a number from 0 to ``most``, or the second is above the first."""
    for name in names:
        _checks.number(call, name, getattr(trigger, name), most=most)
    if len(names) > 1:
        enter, leave = names[:2]
        if getattr(trigger, leave) > getattr(trigger, enter):
            expected = f"at most `{enter}`, which is {getattr(trigger, enter)!r}"
            raise _checks.unfit(call, leave, getattr(trigger, leave), expected)


def check_short_side(call: str, value: int) -> None:
    """Raise if the smallest short side is not an integer of at least 1."""
    _checks.count(call, "min_short_side", value, least=1)


def cleared_below(*leave: float) -> str:
    """The words on the threshold at which a raised flag is cleared."""
    return f", cleared below {' and '.join(f'{value:g}' for value in leave)}"
