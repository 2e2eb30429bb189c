"""The spectral density of a symmetric operator by stochastic Lanczos quadrature, and the numbers that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError
from lightning_ww.curvature.krylov import Storage, gpytorch_lanczos
from lightning_ww.curvature.krylov import lanczos as own_lanczos

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

NEGLIGIBLE = 1e-3
"""Nodes up to this share of the largest node, in absolute value, count as zero."""

CONVERGED_RESIDUAL, CONVERGED_GAP = 1e-2, 1e-1
"""A Ritz value has converged if its residual is below these shares of its size and of the distance to its neighbor."""

SIMPLE_WEIGHT = 10.8
"""The 99.9 % quantile of χ²₁. A simple eigenvalue's weight is χ²₁/P, so a larger P·w means several equal eigenvalues."""

NORMAL_QUANTILE = 3.09
"""The 99.9 % quantile of the normal law, for the weights of all simple eigenvalues together."""

UNCONVERGED = 0.05
"""A top eigenvalue has not converged if its residual exceeds this share of it."""


@dataclass(frozen=True)
class TopEigenvalue:
    """An extreme Ritz value."""

    value: float
    residual: float  # an eigenvalue lies within this distance of the value
    converged: bool


@dataclass(frozen=True)
class SpectralDensity:
    """A spectral density: nodes θ and weights w, ``Σ w f(θ) ≈ tr f(A)/P``. Smoothing would bias the moments."""

    nodes: Tensor  # (n,), float64, ascending within a probe
    weights: Tensor  # (n,), float64, sum 1
    residuals: Tensor  # (n,), float64
    probes: Tensor  # (n,), int64, the probe that a node comes from
    is_simple: Tensor  # (n,), bool, whether it counts as a single converged eigenvalue, of weight 1/P
    dim: int  # P, the number of eigenvalues
    has_copies: bool = False  # made without a basis: an eigenvalue may occur more than once

    @property
    def columns(self) -> dict[str, Any]:
        """The fields by name, from which the density can be rebuilt."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

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
    def num_probes(self) -> int:  # noqa: D102
        return int(self.probes.max()) + 1

    @cached_property
    def tol(self) -> float:
        """The absolute value up to which a node counts as zero, ``1e-3 · max|θ|``."""
        return NEGLIGIBLE * float(self.nodes.abs().max())

    @property
    def sharpness(self) -> float:
        """λ_max, the largest Ritz value."""
        return float(self.nodes.max())

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
    def trace_stderr(self) -> float:
        """The standard error of the trace.

        With several probes, it is the standard error of their mean. With one probe, it is ``√(2P Σ w(θ - θ̄)²)`` over the
        nodes that do not count as simple, where θ̄ is their mean. Their total weight is fixed, since Σw = 1; only its
        distribution among them is random.
        """
        if self.num_probes > 1:
            terms = self.num_probes * self.weights * self.nodes
            each = self.dim * torch.zeros(self.num_probes, dtype=terms.dtype).index_add(0, self.probes, terms)
            return float(each.std() / self.num_probes**0.5)
        rest = ~self.is_simple
        nodes, weights = self.nodes[rest], self.weights[rest]
        if not weights.sum() > 0:
            return 0.0
        centered = nodes - (weights * nodes).sum() / weights.sum()
        return math.sqrt(2 * self.dim * float((weights * centered.square()).sum()))

    @property
    def negative_mass(self) -> float:
        """The share of eigenvalues below ``-tol``."""
        return float(self.weights[self.nodes < -self.tol].sum())

    @property
    def near_zero_mass(self) -> float:
        """The share of eigenvalues within ``tol`` of zero."""
        return float(self.weights[self.nodes.abs() <= self.tol].sum())

    @property
    def condition(self) -> float | None:
        """The sharpness over the weighted median of the nodes above ``tol``; ``None`` if there are no such nodes."""
        above = self.nodes > self.tol
        if not above.any():
            return None
        nodes, order = self.nodes[above].sort()
        cumulative = self.weights[above][order].cumsum(0)
        return self.sharpness / float(
            nodes[torch.searchsorted(cumulative, cumulative[-1] / 2).clamp(max=nodes.numel() - 1)]
        )

    @property
    def log_pseudodet(self) -> float:
        """The sum of ln λ, ``P · Σ w ln θ`` over nodes above ``tol``: the volume of the basin, in logs."""
        above = self.nodes > self.tol
        return self.dim * float((self.weights[above] * self.nodes[above].log()).sum())

    @cached_property
    def _outliers(self) -> tuple[int, float] | None:
        """The number of outliers and the edge of the bulk, by the largest ratio of neighbors, without the first pair."""
        values = [top.value for top in self.top_eigenvalues if top.converged]
        if len(values) < 3:
            return None
        k = max(range(2, len(values)), key=lambda i: values[i - 1] / values[i])
        return k, values[k]

    @property
    def num_outliers(self) -> int | None:
        """The number of converged eigenvalues above the widest relative gap; ``None`` if fewer than three converged."""
        return None if self._outliers is None else self._outliers[0]

    @property
    def bulk_edge(self) -> float | None:
        """The largest converged eigenvalue below the widest relative gap."""
        return None if self._outliers is None else self._outliers[1]

    def effective_dimension(self, num_samples: int, gamma: float = 1.0) -> float:
        """The effective dimension, ``P · Σ w θ₊/(θ₊ + c)`` with c = γ/(nβ), nβ = n/ln n for n training samples."""
        c = gamma * math.log(num_samples) / num_samples
        positive = self.nodes.clamp(min=0)
        return self.dim * float((self.weights * positive / (positive + c)).sum())

    def llc_quadratic(self, num_samples: int, gamma: float = 1.0) -> float:
        """The quadratic approximation of the learning coefficient: half the effective dimension."""
        return self.effective_dimension(num_samples, gamma) / 2


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
    parts = []
    for i in range(num_probes):
        start = _start(operator, dim, seed, i, probe)
        if lanczos == "gpytorch":
            krylov = gpytorch_lanczos(operator, start, num_steps)
        else:  # an operator in half precision is iterated in float32
            krylov = own_lanczos(lambda v: (operator @ v.to(operator.dtype)).to(v), start, num_steps, storage)
        nodes, first, residuals = krylov.ritz()
        weights = first.square() / first.square().sum()
        simple = torch.zeros(nodes.shape, dtype=torch.bool)
        if quadrature == "reduced" and storage != "none":
            weights, simple = _reduce_variance(nodes, weights, residuals, dim)
        parts.append((nodes, weights / num_probes, residuals, torch.full(nodes.shape, i), simple))
    nodes, weights, residuals, probes, simple = (torch.cat(column) for column in zip(*parts, strict=True))
    return SpectralDensity(nodes, weights, residuals, probes, simple, dim, has_copies=storage == "none")


def _reduce_variance(nodes: Tensor, weights: Tensor, residuals: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Give each converged simple eigenvalue its exact weight 1/P; scale the other weights to the rest."""
    gaps = torch.full_like(nodes, torch.inf)
    if nodes.numel() > 1:
        steps = nodes.diff()
        gaps[:-1] = steps
        gaps[1:] = torch.minimum(gaps[1:], steps)
    simple = (residuals < CONVERGED_RESIDUAL * nodes.abs()) & (residuals < CONVERGED_GAP * gaps)
    simple &= (nodes.abs() > NEGLIGIBLE * nodes.abs().max()) & (dim * weights <= SIMPLE_WEIGHT)
    count = int(simple.sum())
    if count == dim:  # all eigenvalues are known
        return torch.full_like(weights, 1 / dim), simple
    # the total weight of m simple eigenvalues is χ²_m/P (its quantile by Wilson and Hilferty): this detects several
    # multiple eigenvalues, each of which could pass for a simple eigenvalue
    most = count * (1 - 2 / (9 * count) + NORMAL_QUANTILE * (2 / (9 * count)) ** 0.5) ** 3 if count else 0.0
    left, share = 1 - count / dim, weights[~simple].sum()
    if not count or dim * float(weights[simple].sum()) > most or not share > 0:
        return weights, torch.zeros_like(simple)
    return torch.where(simple, 1 / dim, weights * left / share), simple


def _start(operator: Any, dim: int, seed: int, number: int, probe: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
    if probe == "gaussian":
        vector = torch.randn(dim, generator=generator, dtype=torch.float64)
    else:
        vector = torch.randint(2, (dim,), generator=generator, dtype=torch.float64) * 2 - 1
    dtype = torch.promote_types(operator.dtype, torch.float32)
    return torch.as_tensor(vector / vector.norm()).to(device=operator.device, dtype=dtype)
