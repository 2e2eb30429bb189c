"""The gradients of a model's layers at optimizer steps, and dead or saturated units. It needs no Lightning."""

from lightning_ww.gradients.metrics import GRADIENT_METRICS
from lightning_ww.gradients.reader import GradientReader
from lightning_ww.gradients.report import GradientReport, LayerGradients
from lightning_ww.gradients.units import Activations, activations

__all__ = ["GRADIENT_METRICS", "Activations", "GradientReader", "GradientReport", "LayerGradients", "activations"]
