"""The spectra of a network's weights and of its loss, while it trains.

`analyze` measures a model's weights; the callbacks that do so during training live in `lightning_ww.callbacks`, which
is imported on purpose: this package loads neither Lightning nor matplotlib.
"""

from lightning_ww.weights.analysis import analyze
from lightning_ww.weights.layers import SkippedLayer
from lightning_ww.weights.metrics import KEY_METRICS, METRICS
from lightning_ww.weights.power_law import (
    NoPowerLawError,
    PowerLawFit,
    TailComparison,
    compare_tails,
    fit_power_law,
    hill_alpha,
)
from lightning_ww.weights.report import LayerReport, WeightReport

__version__ = "0.1.0"

__all__ = [
    "KEY_METRICS",
    "METRICS",
    "LayerReport",
    "NoPowerLawError",
    "PowerLawFit",
    "SkippedLayer",
    "TailComparison",
    "WeightReport",
    "analyze",
    "compare_tails",
    "fit_power_law",
    "hill_alpha",
]
