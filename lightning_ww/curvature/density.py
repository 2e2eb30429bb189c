"""The spectral density of a symmetric operator by stochastic Lanczos quadrature, and the numbers that follow from it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError
from lightning_ww.curvature.estimates import Estimate, EstimateName, Outliers, estimate, find_outliers
from lightning_ww.curvature.krylov import Storage, gpytorch_lanczos
from lightning_ww.curvature.krylov import lanczos as own_lanczos
from lightning_ww.curvature.operators import CurvatureOperator
from lightning_ww.curvature.quadrature import UNCONVERGED, Quadrature

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


@dataclass(frozen=True)
class TopEigenvalue:
    """An extreme Ritz value."""

    value: float
    residual: float  # an eigenvalue lies within this distance of the value
    converged: bool


@dataclass(frozen=True)
class SpectralDensity(Quadrature):
    """A spectral density: nodes θ and weights w, ``Σ w f(θ) ≈ tr f(A)/P``. Smoothing would bias the moments.

    A number that its own error makes worthless is ``None``; `estimate` gives the error, and the reason.
    """

    def plot(self, title: str = "", stability_edge: float | None = None) -> Figure:
        """Draw a stem for each node.

        Args:
            title: The title above the figure. Default: the ends of the spectrum.
            stability_edge: The edge 2/lr, marked by a line. Default: none.

        Returns:
            A matplotlib figure that pyplot does not manage.
        """
        from lightning_ww.curvature.plots.stems import spectrum_figure

        ends = f"{self.dim:,} eigenvalues from {self.lambda_min:.3g} to {self.sharpness:.3g}"
        return spectrum_figure(self, title or ends, stability_edge)

    @property
    def lambda_min(self) -> float:
        """λ_min, the smallest Ritz value."""
        return float(self.nodes.min())

    @property
    def top_eigenvalues(self) -> tuple[TopEigenvalue, ...]:
        """The positive Ritz values of the probe with the largest Ritz value; without a basis, only the largest."""
        first = (self.probes == self.probes[self.nodes.argmax()]) & (self.nodes > self.tol)
        pairs = list(zip(self.nodes[first].flip(0).tolist(), self.residuals[first].flip(0).tolist(), strict=True))
        pairs = pairs[:1] if self.has_copies else pairs
        return tuple(TopEigenvalue(value, residual, residual <= UNCONVERGED * value) for value, residual in pairs)

    @property
    def trace(self) -> float:
        """The sum of all eigenvalues, ``P · Σ wθ``."""
        return self.dim * float((self.weights * self.nodes).sum())

    @property
    def trace_stderr(self) -> float | None:
        """The standard error of the trace; ``None`` with Rademacher probes, whose scatter depends on the basis.

        With a Gaussian probe it is ``√(2P Σ w(θ - θ̄)²)`` over the nodes that do not count as simple, where θ̄ is their
        mean: their total weight is fixed, since Σw = 1, and only its distribution among them is random. A node stands
        for one eigenvalue at least, so w counts as at least 1/P. Over several probes the squares are pooled. Within
        ±2 standard errors lies the true trace of 94 to 96 % of estimates (``tests/curvature/test_density.py``).
        """
        return self.scatter(self.nodes) if self.is_gaussian else None

    def estimate(self, name: EstimateName, num_samples: int | None = None, gamma: float = 1.0) -> Estimate:
        """A number of the form ``P · Σ w f(θ)``, or the condition, with its error.

        The error is √(h² + (2s)²). h is the larger difference to the same number from half the steps, and from one step
        less; s is the standard error over start vectors, as for the trace.

        Args:
            name: ``"negative_mass"``, ``"near_zero_mass"``, ``"log_pseudodet"``, ``"effective_dimension"`` or
                ``"condition"``.
            num_samples: The number n of training samples; only for ``"effective_dimension"``, which needs it.
            gamma: The localization γ; only for ``"effective_dimension"``. Default: ``1``.
        """
        return estimate(self, name, num_samples, gamma)

    @property
    def negative_mass(self) -> float | None:
        """The share of eigenvalues below ``-tol``."""
        return self.estimate("negative_mass").shown

    @property
    def near_zero_mass(self) -> float | None:
        """The share of eigenvalues within ``tol`` of zero."""
        return self.estimate("near_zero_mass").shown

    @property
    def condition(self) -> float | None:
        """The sharpness over the weighted median of the nodes above ``tol``."""
        return self.estimate("condition").shown

    @property
    def log_pseudodet(self) -> float | None:
        """The sum of ln λ, ``P · Σ w ln θ`` over nodes above ``tol``: the volume of the basin, in logs."""
        return self.estimate("log_pseudodet").shown

    def effective_dimension(self, num_samples: int, gamma: float = 1.0) -> float | None:
        """The effective dimension, ``P · Σ w θ₊/(θ₊ + c)`` with c = γ/(nβ), nβ = n/ln n for n training samples."""
        return self.estimate("effective_dimension", num_samples, gamma).shown

    def llc_quadratic(self, num_samples: int, gamma: float = 1.0) -> float | None:
        """The quadratic approximation of the learning coefficient: half the effective dimension."""
        value = self.effective_dimension(num_samples, gamma)
        return None if value is None else value / 2

    @cached_property
    def outliers(self) -> Outliers | None:
        """The eigenvalues above the widest relative gap; ``None`` if there is no clear gap, or no basis."""
        return None if self.has_copies else find_outliers(self)

    @property
    def num_outliers(self) -> int | None:
        """The number of eigenvalues above the widest relative gap."""
        return None if self.outliers is None else self.outliers.count

    @property
    def bulk_edge(self) -> float | None:
        """The largest eigenvalue below the widest relative gap; 0 if it is below 1e-6 of the largest of all."""
        return None if self.outliers is None else self.outliers.bulk_edge

    @property
    def outlier_gap(self) -> float | None:
        """The ratio of the eigenvalues on both sides of the widest relative gap."""
        return None if self.outliers is None else self.outliers.gap


def spectral_density(
    operator: Any,
    *,
    num_steps: int = 30,
    num_probes: int = 1,
    seed: int = 0,
    probe: Literal["gaussian", "rademacher"] = "gaussian",
    quadrature: Literal["reduced", "plain"] = "reduced",
    lanczos: Literal["own", "gpytorch"] = "own",
    storage: Storage = "full",
) -> SpectralDensity:
    """Estimate the spectral density of a symmetric operator.

    Args:
        operator: Anything with ``shape``, ``dtype``, ``device`` and ``@`` on vectors: a `HessianOperator`, a
            ``linear_operator.LinearOperator``, a tensor.
        num_steps: The number of Lanczos steps, each with one product. Default: ``30``, which reaches both ends of a
            network's spectrum (Granziol et al., 2019, Deep Curvature Suite).
        num_probes: The number of random start vectors. Default: ``1``: enough for a large operator that is not close to
            rank one.
        seed: The seed. With the probe's number it fixes the start vector, so that results change only with the operator.
            Default: ``0``.
        probe: The distribution of the start vector, which is scaled to length one. Default: ``"gaussian"``.
        quadrature: ``"plain"`` gives the classical weights. ``"reduced"`` (default) reduces their variance: a Ritz value
            that has converged to a simple eigenvalue has the weight 1/P, and the others share the rest.
        lanczos: The implementation: ours (``"own"``, default), or GPyTorch's ``lanczos_tridiag``, which takes one product
            more, and is accurate only for eigenvalues that are not small.
        storage: The storage of the Krylov basis, P numbers per step: ``"full"`` (default), ``"half"`` (16 bits), or
            ``"none"``, three vectors in all. Without a basis, outliers are not counted, only the largest eigenvalue is
            given, and weights are classical.

    Returns:
        The spectral density, as nodes and weights.

    References:
        Golub, Welsch (1969), Calculation of Gauss quadrature rules, Math. Comp. 23(106).
        Bhattacharjee et al. (2024), Improved spectral density estimation via explicit and implicit deflation,
        arXiv:2410.21690.
    """
    call = "spectral_density"
    _checks.count(call, "num_steps", num_steps, least=1)
    _checks.count(call, "num_probes", num_probes, least=1)
    _checks.choice(call, "probe", probe, ("gaussian", "rademacher"))
    _checks.choice(call, "quadrature", quadrature, ("reduced", "plain"))
    _checks.choice(call, "lanczos", lanczos, ("own", "gpytorch"))
    _checks.choice(call, "storage", storage, get_args(Storage))
    if lanczos == "gpytorch" and storage != "full":
        raise ArgumentError('`spectral_density(lanczos="gpytorch")` keeps its whole basis: leave out `storage`.')
    if len(getattr(operator, "shape", ())) != 2 or operator.shape[0] != operator.shape[1]:
        expected = "a square matrix or operator"
        raise _checks.unfit_object(call, "operator", expected, f"a `{type(operator).__name__}`")
    dim = int(operator.shape[-1])
    spaces = []
    for i in range(num_probes):
        start = _start(operator, dim, seed, i, probe)
        if lanczos == "gpytorch":
            space = gpytorch_lanczos(operator, start, num_steps)
        else:  # an operator in half precision is iterated in float32
            with operator.reused_memory() if isinstance(operator, CurvatureOperator) else nullcontext():
                space = own_lanczos(lambda v: (operator @ v.to(operator.dtype)).to(v), start, num_steps, storage)
            rounding = max(space.rounding, torch.finfo(operator.dtype).eps)  # its products are no better than that
            space = replace(space, rounding=rounding)
        spaces.append(replace(space, basis=space.basis[:0].clone()))  # one basis at a time is in memory
        del space
    return SpectralDensity.of(
        spaces,
        dim,
        is_reduced=quadrature == "reduced" and storage != "none",
        has_copies=storage == "none",
        is_gaussian=probe == "gaussian",
    )


def _start(operator: Any, dim: int, seed: int, number: int, probe: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
    if probe == "gaussian":
        vector = torch.randn(dim, generator=generator, dtype=torch.float64)
    else:
        vector = torch.randint(2, (dim,), generator=generator, dtype=torch.float64) * 2 - 1
    dtype = torch.promote_types(operator.dtype, torch.float32)
    return torch.as_tensor(vector / vector.norm()).to(device=operator.device, dtype=dtype)
