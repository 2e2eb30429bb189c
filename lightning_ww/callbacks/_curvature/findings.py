"""The findings of a measurement of the curvature: its numbers, and the reading that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from lightning_ww.curvature.blocks import Block
from lightning_ww.curvature.density import SpectralDensity
from lightning_ww.curvature.edge_of_stability import EdgeOfStability
from lightning_ww.curvature.estimates import Estimate, EstimateName
from lightning_ww.curvature.krylov import Storage
from lightning_ww.curvature.scatter import BatchNoise

NUM_LOGGED_EIGENVALUES = 5
"""The number of largest eigenvalues that are logged: the first outliers. A classifier has about one for each class."""

ESTIMATES: tuple[EstimateName, ...] = get_args(EstimateName)
"""The numbers that are logged with their errors."""

SUMMARIES = (
    *("sharpness", "sharpness_residual", "lambda_min", "lambda_min_residual", "trace", "trace_stderr"),
    *(name for estimate in ESTIMATES for name in (estimate, f"{estimate}_error")),
    *("num_outliers", "bulk_edge", "outlier_gap", "num_samples", "batch_size", "num_parameters"),
    *("llc_quadratic", "lr_sharpness", "stability_edge", "optimizer_sharpness"),
    *("gradient_norm", "gradient_variance", "gradient_noise_scale", "covariance_top", "hessian_variance", "tic"),
)
"""The names of all numbers of a measurement."""


@dataclass(frozen=True)
class Reading:
    """The curvature of a loss at one moment, as it was read."""

    density: SpectralDensity
    edge: EdgeOfStability | None
    num_samples: int | None  # in the batches of all processes; None: unknown
    num_batches: int  # of each process
    engine: str  # the method of the products with the matrix, in words
    num_training_samples: int | None  # None: unknown
    storage: Storage = "full"  # of the Krylov basis
    left_out: tuple[str, ...] = ()  # parameters that the loss does not reach
    blocks: tuple[Block, ...] = ()  # diagonal ones
    noise: BatchNoise | None = None  # over several batches


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
        density, edge = self.density, self.reading.edge
        values: dict[str, float | None] = {
            "sharpness": density.sharpness,
            "sharpness_residual": float(density.residuals[density.nodes.argmax()]),
            "lambda_min": density.lambda_min,
            "lambda_min_residual": float(density.residuals[density.nodes.argmin()]),
            "trace": density.trace,
            "trace_stderr": density.trace_stderr,
            "num_outliers": density.num_outliers,
            "bulk_edge": density.bulk_edge,
            "outlier_gap": density.outlier_gap,
            "num_samples": self.reading.num_samples,
            "batch_size": None
            if self.reading.num_samples is None
            else self.reading.num_samples / self.reading.num_batches,
            "num_parameters": density.dim,
        }
        for name, estimate in self.estimates.items():
            if estimate.shown is not None:
                values |= {name: estimate.value, f"{name}_error": estimate.error}
        dimension = values.get("effective_dimension")
        values["llc_quadratic"] = None if dimension is None else dimension / 2
        if (noise := self.reading.noise) is not None:
            values |= {
                "gradient_norm": noise.gradient_norm,
                "gradient_variance": noise.gradient_variance,
                "gradient_noise_scale": noise.noise_scale,
                "covariance_top": noise.covariance_eigenvalues[0],
                "hessian_variance": noise.hessian_variance,
                "tic": noise.tic(density.trace),
            }
        if edge is not None:
            values["lr_sharpness"] = edge.lr_sharpness
            values["stability_edge"] = edge.stability_edge
            values["optimizer_sharpness"] = edge.optimizer_sharpness
        return {name: float(value) for name, value in values.items() if value is not None}

    @cached_property
    def estimates(self) -> Mapping[str, Estimate]:
        """The numbers with errors; those that are not shown have a reason."""
        samples = self.reading.num_training_samples
        unknown = Estimate(None, None, "the number of training samples is not known")
        is_known = samples is not None and samples > 1
        return {
            name: self.density.estimate(name, samples) if is_known or name != "effective_dimension" else unknown
            for name in ESTIMATES
        }

    @property
    def scalars(self) -> dict[str, float]:
        """The numbers that are logged besides the summary: the largest eigenvalues, and those of blocks."""
        blocks = {
            f"{name}/{block.name}": value for block in self.reading.blocks for name, value in block.numbers.items()
        }
        return self.top_eigenvalues | blocks

    @property
    def top_eigenvalues(self) -> dict[str, float]:
        """The largest eigenvalues that have converged, the k-th under ``top_eigenvalues/<k>``."""
        tops = enumerate(self.density.top_eigenvalues[:NUM_LOGGED_EIGENVALUES], start=1)
        return {f"top_eigenvalues/{k}": top.value for k, top in tops if top.converged}
