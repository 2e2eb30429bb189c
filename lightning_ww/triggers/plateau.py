"""`Plateau`: the spectra of the weights have stopped changing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import override

from lightning_ww import _checks
from lightning_ww.history import History, Measurement
from lightning_ww.triggers.thresholds import check_band
from lightning_ww.triggers.trigger import WHOLE, Trigger

NOISE = 2.0
"""The multiple of `rand_distance_floor` up to which `rand_distance` is that of noise."""

SPREADS = 3.0
"""The multiple of `alpha_hill_null_sd` up to which `alpha_hill` is that of noise."""


@dataclass(frozen=True)
class Plateau(Trigger):
    """Flag a model whose mean `rand_distance` and mean `alpha_hill` have hardly moved over several measurements.

    It saves epochs, and says nothing of overfitting. The means are over the trained layers but embeddings. A model whose
    spectra are still those of noise is not judged: mean `rand_distance` at most twice its floor, and `alpha_hill` on average
    within three standard deviations of its value for noise. It is raised only if it is named in ``triggers=`` or ``stop_on=``.

    Args:
        distance: The relative range of the mean `rand_distance` that counts as a move. Default: ``0.01``.
        hill: The range of the mean `alpha_hill` that counts as a move. Default: ``0.02``.
        over: The number of measurements. Default: ``10``.

    Raises:
        ArgumentError: If an argument is out of its domain. It is a `ValueError`.
    """

    distance: float = 0.01
    hill: float = 0.02
    over: int = 10

    needs = ("rand_distance", "alpha_hill", "rand_distance_floor", "alpha_hill_null", "alpha_hill_null_sd")
    meaning = "The weights' spectra have settled: further epochs may change little."
    lever = "Stop, lower the learning rate, or train a larger model."

    def __post_init__(self) -> None:
        check_band("Plateau", self, ("distance",))
        check_band("Plateau", self, ("hill",))
        _checks.count("Plateau", "over", self.over, least=1)

    @override
    def candidates(self, history: History[Any]) -> list[str]:
        return [WHOLE] if len(history) > self.over and self._judged(history) else []

    def _judged(self, history: History[Any]) -> list[str]:
        """The layers whose means count."""
        return super().candidates(history)

    @override
    def judge(self, history: History[Any], layer: str) -> str | None:
        layers = self._judged(history)
        window = [history[i] for i in range(-self.over - 1, 0)]
        distances = [_mean(past, "rand_distance", layers) for past in window]
        hills = [_mean(past, "alpha_hill", layers) for past in window]
        if np.isnan([*distances, *hills]).any():
            return None
        if _is_noise(history[-1], layers):
            return None
        moved, turned = float(np.ptp(distances)) / distances[-1], float(np.ptp(hills))
        if moved >= self.distance or turned >= self.hill:
            return None
        return (
            f"over {self.over} measurements mean rand_distance moved by {100 * moved:.2g} % (threshold "
            f"{100 * self.distance:g} %), and mean alpha_hill by {turned:.2g} (threshold {self.hill:g})"
        )


def _is_noise(measurement: Measurement, layers: list[str]) -> bool:
    """Tell whether the spectra are still those of noise, or the values for noise are not known."""
    distance, floor = (_mean(measurement, name, layers) for name in ("rand_distance", "rand_distance_floor"))
    names = ("alpha_hill", "alpha_hill_null", "alpha_hill_null_sd")
    rows = [[measurement.value(layer, name) for name in names] for layer in layers]
    scores = [abs(row[0] - row[1]) / row[2] for row in rows if None not in row and row[2]]  # type: ignore[operator]
    has_shape = bool(scores) and float(np.mean(scores)) > SPREADS
    return not (distance > NOISE * floor or has_shape)


def _mean(measurement: Measurement, metric: str, layers: list[str]) -> float:
    """The mean of a metric over the layers that have it, NaN if none has."""
    known = [value for layer in layers if (value := measurement.value(layer, metric)) is not None]
    return float(np.mean(known)) if known else float("nan")
