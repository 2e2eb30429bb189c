"""The Lightning callbacks, which decide when and on what to measure, and where to log."""

from lightning_ww.callbacks.curvature import CurvatureMonitor
from lightning_ww.callbacks.early_stopping import SpectralEarlyStopping, SpectralStoppingReason
from lightning_ww.callbacks.gradients import GradientMonitor
from lightning_ww.callbacks.learning_coefficient import LearningCoefficientMonitor
from lightning_ww.callbacks.weight_spectrum import WeightSpectrumMonitor

__all__ = [
    "CurvatureMonitor",
    "GradientMonitor",
    "LearningCoefficientMonitor",
    "SpectralEarlyStopping",
    "SpectralStoppingReason",
    "WeightSpectrumMonitor",
]
