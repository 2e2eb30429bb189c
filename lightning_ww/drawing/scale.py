"""Which value has which colour: for each metric the same at every measurement, in every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightning_ww.weights.report import METRICS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """From the first colour to the last; what lies beyond has the colour of that end."""

    low: float
    high: float
    is_log: bool = False

    def place(self, values: Array) -> Array:
        """0 … 1 for values from low to high; NaN where there is none."""
        if not self.is_log:
            return np.asarray(np.clip((values - self.low) / (self.high - self.low), 0, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log10(values)  # zero is minus infinity, and has the first colour
        low, high = np.log10(self.low), np.log10(self.high)
        return np.asarray(np.clip((logs - low) / (high - low), 0, 1))

    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels; the ends say that they hold what is beyond, too."""
        if self.is_log:
            low, high = round(np.log10(self.low)), round(np.log10(self.high))
            step = -(-(high - low) // 4)
            powers = [power for power in range(low, high, step) if high - power >= step]  # the last has room, too
            values = [10.0**power for power in (*powers, high)]
        else:
            values = [float(value) for value in np.linspace(self.low, self.high, 5)]
        places = self.place(np.array(values))
        labels = [f"{value:.3g}" for value in values]
        labels[0], labels[-1] = f"≤ {labels[0]}", f"≥ {labels[-1]}"
        return list(zip(places.tolist(), labels, strict=True))


SHARE, SIGNED_LOG, COUNT = Scale(0, 1), Scale(-4, 6), Scale(1, 1e4, is_log=True)

SCALES: dict[str, Scale] = {
    **dict.fromkeys(METRICS, COUNT),  # ranks and numbers of eigenvalues
    "alpha": Scale(1, 9),  # 2 … 6 in trained networks (Martin, Mahoney 2021)
    "alpha_hill": Scale(1, 9),
    "xmin": Scale(1e-6, 1e4, is_log=True),
    "ks_distance": Scale(0, 0.4),
    "alpha_stderr": Scale(0, 2),
    **dict.fromkeys(("alpha_weighted", "log_alpha_norm"), Scale(-8, 16)),
    **dict.fromkeys(("log_norm", "log_spectral_norm"), SIGNED_LOG),
    "sv_max": Scale(1e-2, 1e3, is_log=True),
    "sv_min": Scale(1e-6, 1e2, is_log=True),
    "condition_number": Scale(1, 1e6, is_log=True),
    "stable_rank": Scale(1, 1e3, is_log=True),
    "entropy": SHARE,
    "erg_gap": Scale(-100, 100),
    **dict.fromkeys(("rand_distance", "rand_distance_floor"), Scale(0, 0.8)),  # at most √ln 2 = 0.83
    "max_rand_eigenvalue": Scale(1e-6, 1e4, is_log=True),
    **dict.fromkeys(("ww_softrank", "mp_softrank"), SHARE),
    **dict.fromkeys(("correlation_traps", "num_spikes"), Scale(0, 8)),
    "rank_loss": Scale(0, 64),
    "trap_z": Scale(-4, 12),
    "trap_element": Scale(0, 2),
    "trap_mean_shift": Scale(0, 2),
    "rank_deficit": SHARE,
    "mp_scale": Scale(0, 2),
    **dict.fromkeys(("bulk_min", "bulk_max"), Scale(1e-6, 1e4, is_log=True)),
    "distance_from_init": Scale(1e-3, 1e3, is_log=True),
    "distance_from_init_relative": Scale(1e-3, 1e1, is_log=True),
    **dict.fromkeys(("distance_from_init_cosine", "distance_from_init_cka"), SHARE),
}
"""Of every metric of a layer."""
