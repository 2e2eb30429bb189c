"""The Lightning callbacks: when a measurement is made, on what, and where it is logged."""

from lightning_ww.callbacks.curvature import CurvatureMonitor
from lightning_ww.callbacks.early_stopping import SpectralEarlyStopping, SpectralStoppingReason
from lightning_ww.callbacks.weight_spectrum import WeightSpectrumMonitor

__all__ = ["CurvatureMonitor", "SpectralEarlyStopping", "SpectralStoppingReason", "WeightSpectrumMonitor"]
