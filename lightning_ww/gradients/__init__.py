"""The gradients of a model's layers at optimizer steps. It needs no Lightning."""

from lightning_ww.gradients.metrics import GRADIENT_METRICS
from lightning_ww.gradients.reader import GradientReader
from lightning_ww.gradients.report import GradientReport, LayerGradients

__all__ = ["GRADIENT_METRICS", "GradientReader", "GradientReport", "LayerGradients"]
