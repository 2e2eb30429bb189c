"""Color scales: the places of values between the first and the last color."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """A range of values from the first color to the last; values beyond an end have the color of that end."""

    low: float
    high: float
    is_log: bool = False

    def place(self, values: Array) -> Array:
        """The places of values, 0 … 1 from low to high; NaN stays NaN."""
        if not self.is_log:
            return np.asarray(np.clip((values - self.low) / (self.high - self.low), 0, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log10(values)  # of zero it is minus infinity, which has the first color
        low, high = np.log10(self.low), np.log10(self.high)
        return np.asarray(np.clip((logs - low) / (high - low), 0, 1))

    def ticks(self) -> list[tuple[float, str]]:
        """The places and labels of ticks; the labels of the ends have ≤ and ≥, since values beyond have that color, too."""
        if self.is_log:
            low, high = round(np.log10(self.low)), round(np.log10(self.high))
            step = -(-(high - low) // 4)
            powers = [power for power in range(low, high, step) if high - power >= step]  # leaves room for the last
            values = [10.0**power for power in (*powers, high)]
        else:
            values = [float(value) for value in np.linspace(self.low, self.high, 5)]
        places = self.place(np.array(values))
        labels = [f"{value:.3g}" for value in values]
        labels[0], labels[-1] = f"≤ {labels[0]}", f"≥ {labels[-1]}"
        return list(zip(places.tolist(), labels, strict=True))
