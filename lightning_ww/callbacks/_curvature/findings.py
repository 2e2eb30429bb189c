"""The findings of a measurement of the curvature: its numbers, and the reading that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from lightning_ww.curvature.density import SpectralDensity
from lightning_ww.curvature.edge_of_stability import EdgeOfStability

NUM_LOGGED_EIGENVALUES = 5
"""The number of largest eigenvalues that are logged: the first outliers. A classifier has about one for each class."""

SUMMARIES = (
    *("sharpness", "sharpness_residual", "lambda_min", "lambda_min_residual", "trace", "trace_stderr"),
    *("negative_mass", "near_zero_mass", "num_outliers", "bulk_edge", "condition", "log_pseudodet", "batch_size"),
    *("effective_dimension", "llc_quadratic", "lr_sharpness", "stability_edge", "optimizer_sharpness"),
)
"""The names of all numbers of a measurement."""


@dataclass(frozen=True)
class Reading:
    """The curvature of a loss at one moment, as it was read."""

    density: SpectralDensity
    edge: EdgeOfStability | None
    num_samples: int  # in the batches of all processes
    engine: str  # the method of the products with the matrix, in words
    num_training_samples: int | None  # None: unknown


class CurvatureFindings:
    """A reading, and the numbers that follow from it."""

    layers = ()
    skipped = ()

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.density = reading.density
        self.engine = reading.engine

    @cached_property
    def summary(self) -> Mapping[str, float]:
        """The numbers that have a value, by name."""
        density, edge, num_training_samples = self.density, self.reading.edge, self.reading.num_training_samples
        values: dict[str, float | None] = {
            "sharpness": density.sharpness,
            "sharpness_residual": float(density.residuals[density.nodes.argmax()]),
            "lambda_min": density.lambda_min,
            "lambda_min_residual": float(density.residuals[density.nodes.argmin()]),
            "trace": density.trace,
            "trace_stderr": density.trace_stderr,
            "negative_mass": density.negative_mass,
            "near_zero_mass": density.near_zero_mass,
            "num_outliers": density.num_outliers,
            "bulk_edge": density.bulk_edge,
            "condition": density.condition,
            "log_pseudodet": density.log_pseudodet,
            "batch_size": self.reading.num_samples,
        }
        if num_training_samples is not None and num_training_samples > 1:
            values["effective_dimension"] = density.effective_dimension(num_training_samples)
            values["llc_quadratic"] = density.llc_quadratic(num_training_samples)
        if edge is not None:
            values["lr_sharpness"] = edge.lr_sharpness
            values["stability_edge"] = edge.stability_edge
            values["optimizer_sharpness"] = edge.optimizer_sharpness
        return {name: float(value) for name, value in values.items() if value is not None}

    @property
    def top_eigenvalues(self) -> dict[str, float]:
        """The largest eigenvalues that have converged, the k-th under ``top_eigenvalues/<k>``."""
        tops = enumerate(self.density.top_eigenvalues[:NUM_LOGGED_EIGENVALUES], start=1)
        return {f"top_eigenvalues/{k}": top.value for k, top in tops if top.converged}
