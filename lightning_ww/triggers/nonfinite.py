"""`Nonfinite`: a weight holds NaN or infinity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from lightning_ww.history import History
from lightning_ww.triggers.trigger import Trigger


@dataclass(frozen=True)
class Nonfinite(Trigger):
    """Flag a layer whose weight holds NaN or infinity; fire with any such layer."""

    meaning = "Training has diverged."
    lever = "Lower the learning rate, or clip gradients."
    acts_at_once = True

    @override
    def judge(self, history: History[Any], layer: str) -> str | None:
        assert history.findings is not None
        return next(skip.sentence for skip in history.findings.skipped if skip.name == layer)

    @override
    def candidates(self, history: History[Any]) -> list[str]:
        skipped = () if history.findings is None else history.findings.skipped
        return [skip.name for skip in skipped if skip.reason == "nonfinite"]
