"""`RankCollapse`: many of a layer's singular values have collapsed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from lightning_ww.history import History, Measurement
from lightning_ww.triggers.from_start import grows_from_zero
from lightning_ww.triggers.thresholds import check_band, check_short_side, cleared_below
from lightning_ww.triggers.trigger import Trigger


@dataclass(frozen=True)
class RankCollapse(Trigger):
    """Flag a layer whose `rank_deficit` is large: many singular values far below those of the same elements shuffled.

    With the defaults it stopped none of 80 healthy runs, and all of 20 whose L2 strangled a layer, of which 14 would have done
    well (`docs/triggers.md`). A weight that is all zero at the start (an adapter's) is judged once its rank no
    longer grows.

    Args:
        enter: The rank deficit, the share of collapsed singular values, at which a flag rises. Default: ``0.5``.
        leave: The rank deficit below which a flag falls. Default: ``0.4``.
        share: The share of the judged layers that must be flagged for the trigger to fire. Default: ``0.25``.
        alone: The rank deficit at which a single flagged layer makes the trigger fire. Default: ``0.9``.
        min_short_side: The smallest short side of layers that are judged. Default: ``16``.

    Raises:
        ArgumentError: If a threshold is out of its domain. It is a `ValueError`.
    """

    enter: float = 0.5
    leave: float = 0.4
    share: float = 0.25
    alone: float = 0.9
    min_short_side: int = 16

    needs = ("rank_deficit",)
    meaning = "Often over-regularization (weight decay, L2), and often harmless."
    lever = "Lower it if validation suffers."

    def __post_init__(self) -> None:
        check_band("RankCollapse", self, ("enter", "leave", "share", "alone"), most=1.0)
        check_short_side("RankCollapse", self.min_short_side)

    @override
    def judge(self, history: History[Any], layer: str) -> str | None:
        deficit = history.value(layer, "rank_deficit")
        if grows_from_zero(history, layer, "rank_deficit"):
            return None
        if deficit is None or deficit < self.threshold(history, layer, self.enter, self.leave):
            return None
        band = cleared_below(self.leave) if history.was_flagged(self.name, layer) else ""
        return (
            f"rank_deficit {deficit:.2f} (threshold {self.enter:g}{band}): that share of its singular values is at most a "
            "tenth of what the same elements in random order have"
        )

    @override
    def severity(self, measurement: Measurement, layer: str) -> float | None:
        deficit = measurement.value(layer, "rank_deficit")
        if deficit is None or self.enter == self.leave:
            return None
        return (deficit - self.leave) / (self.enter - self.leave)

    @override
    def fires(self, history: History[Any], flagged: Sequence[str], candidates: Sequence[str]) -> bool:
        is_gone = any((history.value(layer, "rank_deficit") or 0) >= self.alone for layer in flagged)
        return is_gone or super().fires(history, flagged, candidates)
