"""`UnderTrained`: a layer has learned something, and its spectrum has no heavy tail yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from lightning_ww.history import History
from lightning_ww.triggers.tails import middle_layers
from lightning_ww.triggers.thresholds import check_band
from lightning_ww.triggers.trigger import Trigger


@dataclass(frozen=True)
class UnderTrained(Trigger):
    """Flag a layer whose alpha is above 6 although its spectrum is far from that of noise: for information, it never fires.

    Layers with fewer than 50 eigenvalues and the model's first and last layers are not judged. It flagged a layer in 5 of
    80 healthy runs, and in 3 of 60 that failed (`docs/triggers.md`). It is raised only if it is named in ``triggers=``.

    Args:
        enter: The exponent that has to be exceeded. Default: ``6``, the upper end of trained layers of large networks (Martin,
            Mahoney 2021).
        floors: The multiple of `rand_distance_floor`, the value for noise, that `rand_distance` has to exceed. Default:
            ``5``.

    Raises:
        ArgumentError: If a threshold is out of its domain. It is a `ValueError`.
    """

    enter: float = 6.0
    floors: float = 5.0

    needs = ("alpha", "rand_distance", "rand_distance_floor")
    meaning = "It has left its initial state, and may have more to learn."
    lever = "Train longer, if validation still improves."

    def __post_init__(self) -> None:
        check_band("UnderTrained", self, ("enter",))
        check_band("UnderTrained", self, ("floors",))

    @override
    def candidates(self, history: History[Any]) -> list[str]:
        return middle_layers(self, history)

    @override
    def judge(self, history: History[Any], layer: str) -> str | None:
        alpha, distance = history.value(layer, "alpha"), history.value(layer, "rand_distance")
        floor = history.value(layer, "rand_distance_floor")
        if alpha is None or distance is None or floor is None:
            return None
        if alpha <= self.enter or distance <= self.floors * floor:
            return None
        return (
            f"alpha {alpha:.2f} (threshold {self.enter:g}), rand_distance {distance:.3g}, {distance / floor:.1f} times that "
            f"of noise (threshold {self.floors:g})"
        )

    @override
    def fires(self, history: History[Any], flagged: Sequence[str], candidates: Sequence[str]) -> bool:
        return False
