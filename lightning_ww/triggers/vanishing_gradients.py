"""`VanishingGradients`: a layer's gradient is far smaller than that of the layers after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from lightning_ww.history import History
from lightning_ww.triggers.depth import norms_after
from lightning_ww.triggers.thresholds import check_band
from lightning_ww.triggers.trigger import Trigger


@dataclass(frozen=True)
class VanishingGradients(Trigger):
    """Flag a layer whose gradient norm is a tiny part of the largest one of the layers after it.

    It is a default trigger of `GradientMonitor`.

    Args:
        enter: The ratio below which a flag rises. Default: ``1e-4``.
        leave: The ratio above which it falls, not below ``enter``. Default: ``1e-3``.

    Raises:
        ArgumentError: If an argument is out of its domain. It is a `ValueError`.

    References:
        Glorot, Bengio (2010), Understanding the difficulty of training deep feedforward neural networks, AISTATS.
    """

    enter: float = 1e-4
    leave: float = 1e-3

    needs = ("norm",)
    meaning = "It hardly learns: the gradient shrinks on its way back to it, or its units are dead or saturated."
    lever = "Use normalization, skip connections, another initialization, or units that do not saturate."

    def __post_init__(self) -> None:
        check_band("VanishingGradients", self, ("leave", "enter"), most=1.0)

    @override
    def judge(self, history: History[Any], layer: str) -> str | None:
        norm, later = history.value(layer, "norm"), norms_after(history, layer)
        if norm is None or not later or not max(later) > 0:
            return None
        ratio, limit = norm / max(later), self.threshold(history, layer, self.enter, self.leave)
        if ratio >= limit:
            return None
        return f"gradient norm {norm:.2g}, {ratio:.2g} of the largest one after it (threshold {limit:g})"
