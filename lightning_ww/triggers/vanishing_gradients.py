"""`VanishingGradients`: a layer's gradient is far smaller than that of the layers after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from lightning_ww.history import History
from lightning_ww.triggers.depth import layers_after, norms_after
from lightning_ww.triggers.thresholds import check_band
from lightning_ww.triggers.trigger import Trigger

GROWING = 2.0
"""The factor since the last report above which a gradient counts as growing."""


@dataclass(frozen=True)
class VanishingGradients(Trigger):
    """Flag a layer whose gradient norm is a tiny part of the largest one of the layers after it, at two reports in a row.

    Layers are "after" it that a backward pass reaches before it. A layer whose gradient has more than doubled since the last
    report is not judged: it grows out of zero, as behind an adapter or a gain that is zero at first. Nor are the factors of
    low-rank products. It stopped none of 80 healthy runs, and 30 of 40 that failed slowly, 10 of them before
    (`docs/triggers.md`). It is a default trigger of `GradientMonitor`.

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
        before = history[-2].value(layer, "norm") if len(history) > 1 else None
        if norm is None or before is None or norm > GROWING * before or not later or not max(later) > 0:
            return None
        ratio, limit = norm / max(later), self.threshold(history, layer, self.enter, self.leave)
        was = _ratio_before(history, layer)
        if ratio >= limit or was is None or was >= limit:
            return None
        return f"gradient norm {norm:.2g}, {ratio:.2g} of the largest one after it (threshold {limit:g})"


def _ratio_before(history: History[Any], layer: str) -> float | None:
    """The same ratio at the report before, or ``None`` if there is none."""
    past = history[-2]
    later = [value for name in layers_after(history, layer) if (value := past.value(name, "norm")) is not None]
    norm = past.value(layer, "norm")
    return norm / max(later) if norm is not None and later and max(later) > 0 else None
