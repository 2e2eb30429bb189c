"""`Sharpness`: the loss is more curved than the optimizer's steps can follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from lightning_ww.history import History, Measurement
from lightning_ww.triggers.thresholds import check_band, cleared_below
from lightning_ww.triggers.trigger import Trigger


@dataclass(frozen=True)
class Sharpness(Trigger):
    """Flag a model whose sharpness is beyond the edge of stability of its optimizer.

    It is raised by a `CurvatureMonitor`, and only if it is named in ``triggers=`` or ``stop_on=``. It judges where
    ``curvature/optimizer_sharpness`` is known: for SGD, where it is lr·sharpness/2, and for SGD with momentum. Full-batch
    training hovers at 1 in health, so that the threshold is above it.

    Args:
        enter: The sharpness relative to the edge above which a flag rises. Default: ``1.25``.
        leave: The one below which it falls. Default: ``1.1``.

    Raises:
        ArgumentError: If a threshold is out of its domain. It is a `ValueError`.

    References:
        Cohen et al. (2021), Gradient descent on neural networks typically occurs at the edge of stability, ICLR.
    """

    enter: float = 1.25
    leave: float = 1.1

    needs = ("optimizer_sharpness",)
    meaning = "Steps overshoot along the directions of largest curvature, so that the loss may diverge."
    lever = "Lower the learning rate, or warm it up."

    def __post_init__(self) -> None:
        check_band("Sharpness", self, ("enter", "leave"))

    @override
    def judge(self, history: History[Any], layer: str) -> str | None:
        ratio = history.value(layer, "optimizer_sharpness")
        if ratio is None or ratio <= self.threshold(history, layer, self.enter, self.leave):
            return None
        band = cleared_below(self.leave) if history.was_flagged(self.name, layer) else ""
        return f"sharpness is {ratio:.2f} of the optimizer's edge of stability (threshold {self.enter:g}{band})"

    @override
    def severity(self, measurement: Measurement, layer: str) -> float | None:
        ratio = measurement.value(layer, "optimizer_sharpness")
        if ratio is None or self.enter == self.leave:
            return None
        return (ratio - self.leave) / (self.enter - self.leave)
