"""The spectra of weights: a model in, a `WeightReport` out; power-law and Marchenko–Pastur fits of eigenvalues."""

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
