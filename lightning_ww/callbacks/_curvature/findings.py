"""What a measurement of the curvature found: its numbers, and how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from lightning_ww.curvature.density import SpectralDensity
from lightning_ww.curvature.edge_of_stability import EdgeOfStability

NUM_LOGGED_EIGENVALUES = 5
"""Curves of the largest eigenvalues: the first outliers, of which a classifier has about as many as classes."""

SUMMARIES = (
    *("sharpness", "sharpness_residual", "lambda_min", "lambda_min_residual", "trace", "trace_stderr"),
    *("negative_mass", "near_zero_mass", "num_outliers", "bulk_edge", "condition", "log_pseudodet", "batch_size"),
    *("effective_dimension", "llc_quadratic", "lr_sharpness", "stability_edge", "optimizer_sharpness"),
)
"""The names of all numbers of a measurement."""


@dataclass(frozen=True)
class Reading:
    """What was read off the loss."""

    density: SpectralDensity
    edge: EdgeOfStability | None
    num_samples: int  # in the batches of all processes
    engine: str  # how the products with the matrix were made
    num_training_samples: int | None  # None: unknown


class CurvatureFindings:
    """A reading, and what follows from it."""

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
        """``top_eigenvalues/<k>``, where the k-th largest has converged."""
        tops = enumerate(self.density.top_eigenvalues[:NUM_LOGGED_EIGENVALUES], start=1)
        return {f"top_eigenvalues/{k}": top.value for k, top in tops if top.converged}
