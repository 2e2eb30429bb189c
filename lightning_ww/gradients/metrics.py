"""The table of the numbers of a layer's gradient: their meaning and their colors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_ww.drawing.scale import Scale


@dataclass(frozen=True)
class GradientMetric:
    """A number of a layer's gradient, or of its parameters."""

    meaning: str
    scale: Scale  # the colors of its values, equal in every run


GRADIENT_METRICS: Mapping[str, GradientMetric] = {
    "norm": GradientMetric(
        "‖g‖ at the last step, before clipping and without the scale of AMP", Scale(1e-8, 1e2, is_log=True)
    ),
    "highest_norm": GradientMetric(
        "largest finite ‖g‖ of any step since the last measurement", Scale(1e-8, 1e2, is_log=True)
    ),
    "update_ratio": GradientMetric("‖Δw‖/‖w‖ of the last step", Scale(1e-8, 1, is_log=True)),
    "zero_share": GradientMetric("share of the elements of g that are exactly zero", Scale(0, 1)),
    "nonfinite_share": GradientMetric("share of the elements of g that are NaN or infinite", Scale(0, 1)),
    "weight_norm": GradientMetric("‖w‖", Scale(1e-3, 1e3, is_log=True)),
    "weight_max": GradientMetric("largest |w|", Scale(1e-4, 1e2, is_log=True)),
}
"""The numbers of a layer by name. g is the gradient of all its parameters together, and w their values."""

KEY_GRADIENT_METRICS = ("norm", "update_ratio")
"""Those that are logged for each layer by default."""
