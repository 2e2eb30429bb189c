"""`OverTrained`: the tail of a layer's spectrum is very heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from lightning_ww.history import History
from lightning_ww.triggers.tails import middle_layers
from lightning_ww.triggers.thresholds import check_band
from lightning_ww.triggers.trigger import Trigger


@dataclass(frozen=True)
class OverTrained(Trigger):
    """Flag a layer whose alpha is below 2 by more than two standard errors, with a good fit of a long tail.

    Layers with fewer than 50 eigenvalues and the model's first and last layers are not judged. It stopped 11 of 80 healthy
    runs, and 28 of 40 that failed slowly (`docs/triggers.md`). It is raised only if it is named in ``triggers=`` or
    ``stop_on=``.

    Args:
        enter: The exponent below which ``alpha + 2·alpha_stderr`` has to be. Default: ``2``, below which a power law has no
            mean (Martin, Mahoney 2021).
        most_distance: The largest `ks_distance` of a good fit. Default: ``0.15``.
        fewest: The fewest eigenvalues in the tail. Default: ``20``.
        share: The share of the judged layers that must be flagged for the trigger to fire. Default: ``0.5``.

    Raises:
        ArgumentError: If a threshold is out of its domain. It is a `ValueError`.
    """

    enter: float = 2.0
    most_distance: float = 0.15
    fewest: int = 20
    share: float = 0.5

    needs = ("alpha", "alpha_stderr", "ks_distance", "num_tail")
    meaning = "A few directions may hold most of what it has learned."
    lever = "Compare validation with training: if it suffers, lower the learning rate or regularize."

    def __post_init__(self) -> None:
        check_band("OverTrained", self, ("enter",))
        check_band("OverTrained", self, ("fewest",))
        check_band("OverTrained", self, ("most_distance",), most=1.0)
        check_band("OverTrained", self, ("share",), most=1.0)

    @override
    def candidates(self, history: History[Any]) -> list[str]:
        return middle_layers(self, history)

    @override
    def judge(self, history: History[Any], layer: str) -> str | None:
        alpha, error = history.value(layer, "alpha"), history.value(layer, "alpha_stderr")
        distance, tail = history.value(layer, "ks_distance"), history.value(layer, "num_tail")
        if alpha is None or error is None or distance is None or tail is None:
            return None
        if alpha + 2 * error >= self.enter or distance >= self.most_distance or tail < self.fewest:
            return None
        return f"alpha {alpha:.2f} ± {error:.2f} over {tail:g} eigenvalues (threshold {self.enter:g} by two standard errors)"
