"""`CorrelationTrap`: a few large elements dominate a layer, or many moderately large ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from lightning_ww.history import History, Measurement
from lightning_ww.triggers.thresholds import check_band, check_short_side, cleared_below
from lightning_ww.triggers.trigger import Trigger
from lightning_ww.weights.marchenko_pastur import tracy_widom_threshold

MASKED = 0.1
"""The share of elements that are exactly zero above which a layer counts as masked."""


@dataclass(frozen=True)
class CorrelationTrap(Trigger):
    """Flag a layer whose shuffle has an eigenvalue beyond the edge of noise, also without the mean of its elements.

    So a few large elements are seen, and many moderately large ones. A mean that is not zero, as healthy Adam runs have, is
    taken out. A layer with more than a tenth of its elements exactly zero, as under a mask, is not judged: what is left seems
    large among zeros. Elements with heavy tails have such eigenvalues, too, without any trap (`docs/decisions.md`). With the
    defaults it stopped 2 of 80 healthy runs, and 19 of 40 that failed slowly, all but one of them late (`docs/triggers.md`).

    Args:
        enter: The `trap_z_centred` above which a flag rises, for a layer of one slice; the more slices a layer has, the
            larger is noise's largest z, and both thresholds rise with it. Default: ``3.27``, the Tracy–Widom law's 99.9 %
            point.
        leave: The `trap_z_centred` below which a flag falls. Default: ``2``, the 99 % point.
        share: The share of the judged layers that must be flagged for the trigger to fire. Default: ``0.5``.
        min_short_side: The smallest short side of layers that are judged. Default: ``16``.

    Raises:
        ArgumentError: If a threshold is out of its domain. It is a `ValueError`.
    """

    enter: float = 3.27
    leave: float = 2.0
    share: float = 0.5
    min_short_side: int = 16

    needs = ("trap_z_centred", "trap_element")
    meaning = "A few large elements dominate it, or many moderately large ones."
    lever = "Often the learning rate is too large, or the data hold an outlier."

    def __post_init__(self) -> None:
        check_band("CorrelationTrap", self, ("enter", "leave"))
        check_band("CorrelationTrap", self, ("share",), most=1.0)
        check_short_side("CorrelationTrap", self.min_short_side)

    @override
    def is_eligible(self, record: Any) -> bool:
        return super().is_eligible(record) and getattr(record, "zero_share", 0.0) <= MASKED

    @override
    def severity(self, measurement: Measurement, layer: str) -> float | None:
        z = measurement.value(layer, "trap_z_centred")
        if z is None or min(z, self.leave) <= 0 or self.enter == self.leave:
            return None
        return math.log(z / self.leave) / math.log(self.enter / self.leave)

    @override
    def judge(self, history: History[Any], layer: str) -> str | None:
        z = history.value(layer, "trap_z_centred")
        if z is None:
            return None
        was_flagged = history.was_flagged(self.name, layer)
        slices = getattr(history.record(layer), "slices", 1)
        more = tracy_widom_threshold(slices) - tracy_widom_threshold(1)
        if z < self.leave + more or (not was_flagged and z <= self.enter + more):
            return None
        band = cleared_below(round(self.leave + more, 2)) if was_flagged else ""
        element, shift = history.value(layer, "trap_element") or 0, history.value(layer, "trap_mean_shift") or 0
        return (
            f"trap_z_centred {z:.1f} (threshold {self.enter + more:.3g}{band}), largest element {element:.2f} of the visible "
            f"size, mean shift {shift:.2f}"
        )
