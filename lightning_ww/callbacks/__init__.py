"""The Lightning callbacks: when a measurement is made, on what, and where it is logged."""

from lightning_ww.callbacks.early_stopping import SpectralEarlyStopping, SpectralStoppingReason
from lightning_ww.callbacks.weight_spectrum import WeightSpectrumMonitor

__all__ = ["SpectralEarlyStopping", "SpectralStoppingReason", "WeightSpectrumMonitor"]
