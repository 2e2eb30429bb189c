"""The spectra of weights: the analysis of a model into a `WeightReport`, and power-law and Marchenko–Pastur fits."""

from lightning_ww.weights.marchenko_pastur import MarchenkoPasturFit, fit_marchenko_pastur
from lightning_ww.weights.power_law import (
    NoPowerLawError,
    PowerLawFit,
    TailComparison,
    compare_tails,
    fit_power_law,
    hill_alpha,
)

__all__ = [
    "MarchenkoPasturFit",
    "NoPowerLawError",
    "PowerLawFit",
    "TailComparison",
    "compare_tails",
    "fit_marchenko_pastur",
    "fit_power_law",
    "hill_alpha",
]
