"""The spectra of a network's weights and of its loss's curvature, during training.

`analyze` measures a model's weights, and `diagnose` flags its layers. The callbacks that do so during training are in
`lightning_ww.callbacks`. Import it explicitly: this package loads neither Lightning nor matplotlib.
"""

from lightning_ww._errors import LightningWWError
from lightning_ww.history import History, Measurement, Moment
from lightning_ww.measurements import CurvatureMeasurement
from lightning_ww.triggers import (
    CorrelationTrap,
    Diagnosis,
    ExplodingGradients,
    Flag,
    Instability,
    Nonfinite,
    NotLearning,
    OverTrained,
    Plateau,
    RankCollapse,
    Sharpness,
    Trigger,
    UnderTrained,
    VanishingGradients,
    diagnose,
)
from lightning_ww.weights.analysis import analyze
from lightning_ww.weights.metrics import KEY_METRICS, METRICS
from lightning_ww.weights.report import LayerReport, WeightReport
from lightning_ww.weights.slices import SkippedLayer

__version__ = "0.1.0"

__all__ = [
    "KEY_METRICS",
    "METRICS",
    "CorrelationTrap",
    "CurvatureMeasurement",
    "Diagnosis",
    "ExplodingGradients",
    "Flag",
    "History",
    "Instability",
    "LayerReport",
    "LightningWWError",
    "Measurement",
    "Moment",
    "Nonfinite",
    "NotLearning",
    "OverTrained",
    "Plateau",
    "RankCollapse",
    "Sharpness",
    "SkippedLayer",
    "Trigger",
    "UnderTrained",
    "VanishingGradients",
    "WeightReport",
    "analyze",
    "diagnose",
]
