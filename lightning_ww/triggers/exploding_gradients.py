"""`ExplodingGradients`: a layer's gradient is far larger than that of the layers after it, or than it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import override

from lightning_ww import _checks
from lightning_ww.history import History
from lightning_ww.triggers.depth import norms_after
from lightning_ww.triggers.thresholds import check_band
from lightning_ww.triggers.trigger import Trigger

FEWEST = 3
"""The fewest layers after a layer, and reports before one, whose median is compared with."""


@dataclass(frozen=True)
class ExplodingGradients(Trigger):
    """Flag a layer whose gradient norm is a large multiple of the median of the layers after it, or of its own in the past.

    A median needs at least three values, so the last three layers are judged by their past alone. It stopped none of 80
    healthy runs, and 2 of 40 that failed slowly (`docs/triggers.md`). It is a default trigger of `GradientMonitor`.

    Args:
        enter: The multiple above which a flag rises. Default: ``1e3``.
        leave: The multiple below which it falls, not above ``enter``. Default: ``1e2``.
        over: The number of reports before this one that make up the past. Default: ``10``.

    Raises:
        ArgumentError: If an argument is out of its domain. It is a `ValueError`.

    References:
        Pascanu et al. (2013), On the difficulty of training recurrent neural networks, ICML.
    """

    enter: float = 1e3
    leave: float = 1e2
    over: int = 10

    needs = ("highest_norm",)
    meaning = "The gradient grows on its way back through the layers, or over time; training may diverge."
    lever = "Lower the learning rate, warm it up, clip gradients, or use normalization."

    def __post_init__(self) -> None:
        check_band("ExplodingGradients", self, ("enter", "leave"))
        _checks.count("ExplodingGradients", "over", self.over, least=FEWEST)

    @override
    def judge(self, history: History[Any], layer: str) -> str | None:
        norm = history.value(layer, "highest_norm")
        if norm is None:
            return None
        limit = self.threshold(history, layer, self.enter, self.leave)
        earlier = [history[i] for i in range(-min(self.over + 1, len(history)), -1)]
        past = [value for one in earlier if (value := one.value(layer, "highest_norm"))]
        groups = {"of the layers after it": norms_after(history, layer, "highest_norm"), "of its own past": past}
        for words, norms in groups.items():
            known = [value for value in norms if value > 0]
            if len(known) >= FEWEST and norm > limit * float(np.median(known)):
                times = norm / float(np.median(known))
                return f"gradient norm {norm:.2g}, {times:.2g} times the median {words} (threshold {limit:g})"
        return None
