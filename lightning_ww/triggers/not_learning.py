"""`NotLearning`: a layer has hardly moved from its initial weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from lightning_ww import _checks
from lightning_ww.history import History
from lightning_ww.triggers.thresholds import check_band
from lightning_ww.triggers.trigger import Trigger


@dataclass(frozen=True)
class NotLearning(Trigger):
    """Flag a layer that has hardly moved from its initial weight after some measurements: for information, it never fires.

    It is raised only if it is named in ``triggers=``.

    Args:
        enter: The `distance_from_init_relative` below which a flag rises. Default: ``1e-3``.
        after: The number of the first measurement at which layers are judged; the one at the start has number 0. Default:
            ``5``.

    Raises:
        ArgumentError: If an argument is out of its domain. It is a `ValueError`.
    """

    enter: float = 1e-3
    after: int = 5

    needs = ("distance_from_init_relative",)
    meaning = "Its gradients may be too small, or do not reach it."
    lever = "Raise its learning rate, or look at its gradients."

    def __post_init__(self) -> None:
        check_band("NotLearning", self, ("enter",))
        _checks.count("NotLearning", "after", self.after, least=1)

    @override
    def judge(self, history: History[Any], layer: str) -> str | None:
        moved = history.value(layer, "distance_from_init_relative")
        if moved is None or moved >= self.enter or history[-1].number < self.after:
            return None
        steps = history[-1].step
        return f"distance_from_init_relative {moved:.2g} after {steps} steps (threshold {self.enter:g})"

    @override
    def fires(self, history: History[Any], flagged: Sequence[str], candidates: Sequence[str]) -> bool:
        return False
