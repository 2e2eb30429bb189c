"""The spectrum of a noise matrix: the Marchenko–Pastur bulk, the Tracy–Widom scale of its edge, and spikes above it.

A noise matrix is ``N × M`` (``N ≥ M``), with independent elements of variance ``σ²``. It is not divided by √N, so the
eigenvalues of ``WᵀW`` fill ``σ²(√N - √M)² … σ²(√N + √M)²``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lightning_ww._errors import NoValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FALSE_TRAP_RATE = 0.001
"""The chance that the shuffle of a layer without large elements shows a trap."""

TRACY_WIDOM_MEAN = -1.2065335745820
"""The mean of a noise matrix's largest eigenvalue, in the units of `edge_statistics` (Tracy–Widom law, β = 1)."""


def edge_statistics(N: int, M: int) -> tuple[float, float]:
    """Center μ and scale τ of a noise matrix's largest eigenvalue, for unit variance (Johnstone).

    ``μ = (√(N-1) + √M)²``, ``τ = (√(N-1) + √M)(1/√(N-1) + 1/√M)^⅓``; ``(λ_max - μ)/τ`` follows the Tracy–Widom law.

    Args:
        N: Long side, at least 2.
        M: Short side.

    References:
        Johnstone (2001), On the distribution of the largest eigenvalue in principal components analysis, Ann. Stat.
        29(2).
    """
    a, b = (N - 1) ** 0.5, M**0.5
    return (a + b) ** 2, (a + b) * (1 / a + 1 / b) ** (1 / 3)


@lru_cache(maxsize=64)
def tracy_widom_threshold(slices: int = 1) -> float:
    """The Tracy–Widom quantile (β = 1) that any of ``slices`` noise matrices exceeds with a chance of 0.001.

    It is 3.27 for one slice.
    """
    from scipy.optimize import brentq

    tail = FALSE_TRAP_RATE / slices
    return float(brentq(lambda s: 1 - tracy_widom_cdf(s) - tail, -2.0, 20.0, xtol=1e-9))


def tracy_widom_cdf(s: float) -> float:
    """The Tracy–Widom distribution function for β = 1, by Bornemann's quadrature of its Fredholm determinant.

    ``F₁(s) = det(I - V)`` on ``L²(0, ∞)`` with ``V(x, y) = ½ Ai((x + y)/2 + s)``.

    References:
        Ferrari, Spohn (2005), A determinantal formula for the GOE Tracy–Widom distribution, J. Phys. A 38(33).
        Bornemann (2010), On the numerical evaluation of Fredholm determinants, Math. Comp. 79(270).
    """
    from scipy.special import airy

    nodes, weights = _half_line_rule()
    root = np.sqrt(weights)
    kernel = 0.5 * airy((nodes[:, None] + nodes[None, :]) / 2 + s)[0]
    return float(np.linalg.det(np.eye(nodes.size) - root[:, None] * kernel * root[None, :]))


@lru_cache(maxsize=256)
def bulk_quantiles(N: int, M: int) -> Array:
    """The ``M`` eigenvalues that a noise matrix of unit variance is expected to have, ascending, shape ``(M,)``.

    They are the quantiles ``(i - ½)/M`` of the Marchenko–Pastur law; the largest is at least the mean of the
    Tracy–Widom law.
    """
    quantiles = law_quantiles(N, M, M)
    if N > 1:
        mu, tau = edge_statistics(N, M)
        quantiles[-1] = max(quantiles[-1], mu + TRACY_WIDOM_MEAN * tau)
    quantiles.setflags(write=False)  # shared by all callers
    return quantiles


def law_quantiles(N: int, M: int, n: int) -> Array:
    """The quantiles ``(i - ½)/n`` of the Marchenko–Pastur law for unit variance, ascending, shape ``(n,)``."""
    # With λ = N + M + 2√(NM)·cosθ the density's square roots become sines, and the integrand is smooth.
    theta = np.linspace(np.pi, 0.0, max(2048, 8 * n))
    center, radius = N + M, 2 * (N * M) ** 0.5
    eigenvalues = center + radius * np.cos(theta)
    with np.errstate(divide="ignore", invalid="ignore"):
        density = radius**2 * np.sin(theta) ** 2 / (2 * np.pi * M * eigenvalues)
    if N == M:
        density[0] = radius / (np.pi * M)  # sin²θ/(1 + cosθ) → 2 where the bulk touches zero
    cdf = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * (theta[0] - theta[1]))])
    places = (np.arange(n) + 0.5) / n
    return np.asarray(center + radius * np.cos(np.interp(places, cdf / cdf[-1], theta)))


@lru_cache(maxsize=64)
def noise_eigenvalues(N: int, M: int, draws: int, seed: int = 0) -> Array:
    """The eigenvalues of Gaussian noise matrices of unit variance, without the matrices, shape ``(draws, M)``, ascending.

    Those of a matrix are the squared singular values of a random bidiagonal matrix of order M: χ-distributed with
    N … N-M+1 degrees of freedom on the diagonal, and with M-1 … 1 below it. They have exactly the law of the matrix's own.

    Args:
        N: Long side.
        M: Short side.
        draws: The number of matrices.
        seed: The seed of the draws. Default: ``0``.

    References:
        Dumitriu, Edelman (2002), Matrix models for beta ensembles, J. Math. Phys. 43(11).
    """
    from scipy.linalg import eigvalsh_tridiagonal

    random = np.random.default_rng([seed, N, M])
    values = np.empty((draws, M))
    for draw in range(draws):
        diagonal = random.chisquare(np.arange(N, N - M, -1))
        below = random.chisquare(np.arange(M - 1, 0, -1))
        squares = diagonal + np.concatenate([[0.0], below])  # B Bᵀ is tridiagonal
        values[draw] = np.maximum(eigvalsh_tridiagonal(squares, np.sqrt(diagonal[:-1] * below)), 0.0)
    values.setflags(write=False)  # shared by all callers
    return values


def with_kurtosis(eigenvalues: Array, N: int, M: int, excess: float) -> Array:
    """The eigenvalues of noise, moved to where they are if the elements have an excess kurtosis κ.

    An eigenvalue ``λ = N + M + 2√(NM) cos θ`` becomes ``λ (1 + κ cos θ/√(NM))``. To this order the kurtosis adds
    ``(κ/π) cos 2θ dθ`` to the expected number of eigenvalues: of the moments of noise, it first changes the second,
    ``E Σλ² = NM(N + M + 1 + κ)``.

    Args:
        eigenvalues: Eigenvalues of noise of unit variance, shape ``(M,)``.
        N: Long side.
        M: Short side.
        excess: The excess kurtosis κ.
    """
    cosine = np.clip((eigenvalues - N - M) / (2 * (N * M) ** 0.5), -1, 1)
    return np.asarray(eigenvalues * (1 + excess * cosine / (N * M) ** 0.5))


def bulk_edges(N: int, M: int, variance: float) -> tuple[float, float]:
    """The lower and the upper edge of the bulk of noise, ``σ² (√N ∓ √M)²``."""
    return variance * (N**0.5 - M**0.5) ** 2, variance * (N**0.5 + M**0.5) ** 2


def bulk_density(eigenvalues: Array, N: int, M: int, variance: float) -> Array:
    """The Marchenko–Pastur density, ``√((λ₊ - λ)(λ - λ₋)) / (2π σ² M λ)``; zero outside the bulk.

    Args:
        eigenvalues: The positive λ at which it is evaluated.
        N: Long side.
        M: Short side.
        variance: The variance σ² of an element.
    """
    low, high = bulk_edges(N, M, variance)
    inside = np.clip((high - eigenvalues) * (eigenvalues - low), 0, None)
    return np.asarray(np.sqrt(inside) / (2 * np.pi * variance * M * eigenvalues))


def spike_position(strength: float, N: int, M: int) -> float | None:
    """The eigenvalue at which a rank-one part shows above a bulk of unit variance, or ``None`` if it does not.

    With the part's singular value t (``strength``) it is ``(t² + N)(t² + M)/t²`` for ``t > (NM)^¼``.

    References:
        Baik, Ben Arous, Péché (2005), Phase transition of the largest eigenvalue, Ann. Probab. 33(5).
    """
    if strength <= (N * M) ** 0.25:
        return None
    square = strength**2
    return (square + N) * (square + M) / square


@dataclass(frozen=True)
class MarchenkoPasturFit:
    """A Marchenko–Pastur bulk fitted to a layer's own spectrum."""

    mp_scale: float  # σ of the bulk, for eigenvalues scaled to mean 1
    bulk_min: float  # lower edge, in the units of the eigenvalues
    bulk_max: float  # upper edge
    num_spikes: int  # eigenvalues above the edge by more than its width
    mp_softrank: float  # bulk_max / λ_max


def fit_marchenko_pastur(eigenvalues: Array, N: int, M: int) -> MarchenkoPasturFit:
    """Fit the width of a Marchenko–Pastur bulk to a spectrum, by WeightWatcher's objective.

    The objective is the sum of squared differences, on a grid, between the law's density and the spectrum's. The latter
    is a kernel density with a triangular kernel of bandwidth 0.1 (for square matrices, of the singular values). It does
    not depend on the width, so it is computed once, in closed form.

    Args:
        eigenvalues: The eigenvalues of all slices together, ascending, shape ``(n,)``.
        N: Long side of one slice.
        M: Short side.

    Returns:
        The fit; spikes are counted above ``edge + √(Q^(-½) edge^⅔ M^(-⅔))``, WeightWatcher's margin.

    Raises:
        NoValueError: If the spectrum is zero, or has no density to fit. It is a `ValueError`.
    """
    from scipy.optimize import brute

    if not eigenvalues[-1] > 0:
        raise NoValueError("all eigenvalues are zero")
    Q = N / M
    scaled = eigenvalues * (eigenvalues.size / eigenvalues.sum())
    points = np.sqrt(scaled) if N == M else scaled
    grid = np.linspace(0, points[-1] + 0.5, 1000)
    density = _triangle_density(points, grid, bandwidth=0.1)
    dense = density > 0.01
    if not dense.any():
        raise NoValueError("the spectrum is too spread out to have a bulk")
    grid, density = grid[dense], density[dense]
    peak = grid[np.argmax(density)]
    low, high = 1 - Q**-0.5, 1 + Q**-0.5

    def cost(parameter: Array) -> float:
        s = float(np.atleast_1d(parameter)[0])
        if N == M:
            law = np.nan_to_num(np.sqrt(np.maximum(4 - grid**2, 0)) / (np.pi * s**2))
        else:
            a, b = (s * low) ** 2, (s * high) ** 2
            if b < peak or b > grid[-1] or a > peak:
                return 1e6 * grid.size
            with np.errstate(divide="ignore", invalid="ignore"):
                law = np.nan_to_num(Q / (2 * np.pi * s**2 * grid) * np.sqrt(np.maximum((b - grid) * (grid - a), 0)))
        return float(np.square(law - density).sum())

    widest = float(np.sqrt(scaled[-1])) / high
    scale = float(np.ravel(brute(cost, (slice(0.05 * widest, 2 * widest, 0.01 * widest),)))[0])
    edge = (scale * high) ** 2
    margin = (Q**-0.5 * edge ** (2 / 3) * M ** (-2 / 3)) ** 0.5
    unscale = eigenvalues.sum() / eigenvalues.size
    return MarchenkoPasturFit(
        mp_scale=scale,
        bulk_min=float((scale * low) ** 2 * unscale),
        bulk_max=float(edge * unscale),
        num_spikes=int((scaled > edge + margin).sum()),
        mp_softrank=float(edge / scaled[-1]),
    )


def _triangle_density(points: Array, grid: Array, bandwidth: float) -> Array:
    """The kernel density with kernel ``(1 - |u|/h)/h``, from prefix sums over the sorted points."""
    points = np.sort(points)
    sums = np.concatenate([[0.0], np.cumsum(points)])
    left, middle, right = (np.searchsorted(points, grid + d) for d in (-bandwidth, 0.0, bandwidth))
    below = (middle - left) * (bandwidth - grid) + (sums[middle] - sums[left])
    above = (right - middle) * (bandwidth + grid) - (sums[right] - sums[middle])
    return np.asarray((below + above) / (bandwidth**2 * points.size))


@lru_cache(maxsize=1)
def _half_line_rule(order: int = 64) -> tuple[Array, Array]:
    """Gauss–Legendre nodes and weights on (0, 24); beyond it the Airy kernel is negligible for every s above -8."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return 12 * (nodes + 1), 12 * weights
