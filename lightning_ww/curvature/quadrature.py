"""Gauss quadrature of a symmetric operator, with reduced variance: converged simple eigenvalues have the weight 1/P."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import Self

from lightning_ww.curvature.krylov import Krylov

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

CONVERGED_RESIDUAL, CONVERGED_GAP = 1e-2, 1e-1
"""A Ritz value has converged if its residual is below these shares of its size and of the distance to its neighbor."""

NEGLIGIBLE = 1e-3
"""Nodes up to this share of the largest node, in absolute value, count as zero."""

UNCONVERGED = 0.05
"""A top eigenvalue has not converged if its residual exceeds this share of it."""

SIMPLE_WEIGHT = 10.8
"""The 99.9 % quantile of χ²₁. A simple eigenvalue's weight is χ²₁/P, so a larger P·w means several equal eigenvalues."""

NORMAL_QUANTILE = 3.09
"""The 99 % quantile of the normal law, for the weights of all simple eigenvalues together."""


@dataclass(frozen=True)
class Quadrature:
    """Nodes θ and weights w with ``Σ w f(θ) ≈ tr f(A)/P``, from a Krylov space for each probe."""

    nodes: Tensor  # (n,), float64, ascending within a probe
    weights: Tensor  # (n,), float64, sum 1
    residuals: Tensor  # (n,), float64
    probes: Tensor  # (n,), int64, the probe that a node comes from
    is_simple: Tensor  # (n,), bool, whether it counts as a single converged eigenvalue, of weight 1/P
    diagonal: Tensor  # (n,), float64, of each probe's tridiagonal matrix
    off_diagonal: Tensor  # (n,), float64; a probe's last is the norm of what is left outside its Krylov space
    dim: int  # P, the number of eigenvalues
    rounding: float  # the relative rounding of the products
    has_copies: bool = False  # made without a basis: an eigenvalue may occur more than once
    is_reduced: bool = True  # whether the weights of simple eigenvalues are 1/P where they can be told
    is_gaussian: bool = True  # the law of the probes, which the errors need

    @classmethod
    def of(cls, spaces: Sequence[Krylov], dim: int, *, is_reduced: bool, has_copies: bool, is_gaussian: bool) -> Self:
        """The quadrature from a Krylov space for each probe."""
        parts = []
        for number, space in enumerate(spaces):
            nodes, first, residuals = space.ritz()
            off_diagonal = torch.cat([space.off_diagonal, space.off_diagonal.new_tensor([space.remainder])])
            plain = first.square() / first.square().sum()
            weights, simple = plain, torch.zeros(nodes.shape, dtype=torch.bool)
            if is_reduced:
                weights, simple = reduced(nodes, plain, residuals, dim)
            numbers = torch.full(nodes.shape, number)
            parts.append((nodes, weights, residuals, numbers, simple, space.diagonal, off_diagonal, plain))
        nodes, weights, residuals, probes, simple, diagonal, off_diagonal, plain = (
            torch.cat(column) for column in zip(*parts, strict=True)
        )
        count = len(spaces)
        columns = (nodes, weights / count, residuals, probes, simple, diagonal, off_diagonal)
        classical = replace(
            cls(
                *columns, dim, spaces[0].rounding, is_reduced=is_reduced, has_copies=has_copies, is_gaussian=is_gaussian
            ),
            weights=plain / count,
            is_simple=torch.zeros_like(simple),
        )
        quadrature = replace(classical, weights=weights / count, is_simple=simple)
        # multiple eigenvalues can each pass for a simple one, but together they make the classical trace larger: a simple
        # eigenvalue's part of it is θ times χ²₁ for each probe
        sizes = quadrature.nodes[simple].abs()
        excess = float((sizes * (dim * plain[simple] - 1)).sum())
        return classical if excess > 2 * math.sqrt(2 * float(sizes.square().sum())) else quadrature

    @property
    def columns(self) -> dict[str, Any]:
        """The fields by name, from which the density can be rebuilt."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def num_probes(self) -> int:  # noqa: D102
        return int(self.probes.max()) + 1

    @property
    def num_steps(self) -> int:
        """The number of Lanczos steps of the longest probe."""
        return int(self.probes.bincount().max())

    @cached_property
    def tol(self) -> float:
        """The absolute value up to which a node counts as zero, ``1e-3 · max|θ|``."""
        return NEGLIGIBLE * float(self.nodes.abs().max())

    @property
    def sharpness(self) -> float:
        """λ_max, the largest Ritz value."""
        return float(self.nodes.max())

    @property
    def is_exact(self) -> bool:
        """Tell whether each probe's Krylov space is invariant: further steps would change nothing."""
        ends = torch.cat([self.probes[1:] != self.probes[:-1], torch.ones(1, dtype=torch.bool)])
        return not bool(self.off_diagonal[ends].any())

    def leading(self, steps: int) -> Self:
        """The quadrature after fewer steps, which the leading part of each tridiagonal matrix gives."""
        spaces = []
        for probe in range(self.num_probes):
            own = self.probes == probe
            diagonal, off_diagonal = self.diagonal[own][:steps], self.off_diagonal[own][:steps]
            spaces.append(
                Krylov(diagonal, off_diagonal[:-1], float(off_diagonal[-1]), diagonal.new_empty(0), self.rounding)
            )
        return type(self).of(
            spaces,
            self.dim,
            is_reduced=self.is_reduced,
            has_copies=self.has_copies,
            is_gaussian=self.is_gaussian,
        )

    def scatter(self, values: Tensor) -> float:
        """The standard error of ``P · Σ w f(θ)`` over Gaussian start vectors, from the f of each node.

        It is pooled over the probes, or that of the mean of their own estimates if that is larger.
        """
        squares, each = 0.0, []
        for probe in range(self.num_probes):
            own = self.probes == probe
            weights = self.num_probes * self.weights
            each.append(self.dim * (weights * values)[own].sum())
            rest = own & ~self.is_simple
            if (share := weights[rest].sum()) > 0:
                mean = (weights * values)[rest].sum() / share
                squares += (
                    2 * self.dim * float((weights.clamp(min=1 / self.dim) * (values - mean).square())[rest].sum())
                )
        pooled = math.sqrt(squares) / self.num_probes
        return max(pooled, float(torch.stack(each).std()) / len(each) ** 0.5) if len(each) > 1 else pooled


def reduced(nodes: Tensor, weights: Tensor, residuals: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Give each converged simple eigenvalue its exact weight 1/P; scale the other weights to the rest.

    Args:
        nodes: The Ritz values of one probe, ascending, shape ``(n,)``.
        weights: The classical weights, sum 1, shape ``(n,)``.
        residuals: The residuals, shape ``(n,)``.
        dim: The number of eigenvalues P.

    Returns:
        The weights, and which of the nodes count as simple, each ``(n,)``.

    References:
        Bhattacharjee et al. (2024), Improved spectral density estimation via explicit and implicit deflation,
        arXiv:2410.21690.
    """
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
