"""Thresholds of triggers: domains, order and words."""

from __future__ import annotations

import re

import pytest

from lightning_ww import CorrelationTrap, RankCollapse
from lightning_ww.triggers.thresholds import cleared_below


def test_the_leave_threshold_may_equal_the_enter_threshold_and_not_exceed_it() -> None:
    assert RankCollapse(enter=0.4, leave=0.4).leave == 0.4
    message = "`CorrelationTrap(leave=4)`: expected at most `enter`, which is 3.27."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CorrelationTrap(leave=4)


def test_a_held_flag_names_each_leave_threshold() -> None:
    assert cleared_below(2.0) == ", cleared below 2"
    assert cleared_below(2.0, 0.8) == ", cleared below 2 and 0.8"
