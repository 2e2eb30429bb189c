"""A layer's empirical spectral density as a histogram of log10 λ with fixed bins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DECADES_BELOW, DECADES_ABOVE, BINS_PER_DECADE = 6, 2, 8


@dataclass(frozen=True)
class EsdBins:
    """Fixed bin edges of log10 λ, so that a layer's histograms of different times can be compared."""

    low: int  # whole decades
    high: int

    @classmethod
    def about(cls, eigenvalues: Array) -> EsdBins:
        """Make bins from six decades below the largest eigenvalue to two above, which leaves room for training."""
        largest = eigenvalues[-1]
        top = int(np.ceil(np.log10(largest))) if largest > 0 and np.isfinite(largest) else 0
        return cls(top - DECADES_BELOW, top + DECADES_ABOVE)

    @property
    def edges(self) -> Array:
        """The edges, ascending, shape ``(bins + 1,)``."""
        return np.linspace(self.low, self.high, (self.high - self.low) * BINS_PER_DECADE + 1)

    def logs(self, eigenvalues: Array) -> Array:
        """The log10 of eigenvalues, clipped to the outermost edges."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.clip(np.log10(eigenvalues), self.low, self.high))
