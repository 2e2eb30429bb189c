"""A layer against the same elements in random order: rand_distance, correlation traps, rank deficit.

A shuffle keeps a matrix's elements and destroys their correlations: what its spectrum shows beyond the Marchenko–Pastur
bulk comes from a few large elements or from a mean that is not zero; what the layer's spectrum shows beyond its
shuffle's is structure that was learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightning_ww.weights import marchenko_pastur

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MAX_CACHED_BYTES = 64 * 2**20
"""Permutations kept for the next measurement; those beyond are drawn again."""

PREDICTABLE_FROM = 256
"""The shortest short side whose shuffled spectrum is predicted (below, the prediction is coarser than a draw)."""

COLLAPSED = 0.1
"""A singular value at or below this share of its shuffle's same-rank one counts towards rank_deficit."""


@dataclass(frozen=True)
class ElementStatistics:
    """Moments of each slice's elements; every field has shape ``(slices,)``."""

    mean: Array
    std: Array
    trimmed_variance: Array  # without the elements that the shuffled spectrum would show: |w - mean| ≥ std·(NM)^¼
    excess_kurtosis: Array
    largest: Array  # max |w - mean|
    N: int
    M: int

    @property
    def visible(self) -> Array:
        """Elements beyond this distance from the mean show as spikes of the shuffled spectrum: ``std·(NM)^¼``."""
        return np.asarray(self.std * (self.N * self.M) ** 0.25)

    @property
    def has_visible_elements(self) -> NDArray[np.bool_]:
        """Whether a slice has an element large enough to be seen."""
        return np.asarray(self.varies & (self.largest >= self.visible))

    @property
    def varies(self) -> NDArray[np.bool_]:
        """Whether a slice's elements differ by more than rounding."""
        return np.asarray(self.std > 1e-12 * np.abs(self.mean))

    @property
    def trap_element(self) -> float | None:
        """``max|w - w̄| / (σ(NM)^¼)``, largest over slices; 1 = visible. ``None`` if all elements are alike."""
        return float((self.largest / self.visible)[self.varies].max()) if self.varies.any() else None

    @property
    def trap_mean_shift(self) -> float | None:
        """``|w̄|(NM)^¼/σ``, largest over slices; 1 = visible. ``None`` if all elements are alike."""
        if not self.varies.any():
            return None
        return float((np.abs(self.mean) * (self.N * self.M) ** 0.25 / self.std)[self.varies].max())

    @property
    def predictable(self) -> bool:
        """Whether the shuffle's spectrum is known well enough without drawing it.

        ``M ≥ 256``, excess kurtosis ≤ ½ M^⅓ and no element beyond half of the visible size: then the prediction differs
        from one draw by less than two draws differ from each other (measured).
        """
        if self.M < PREDICTABLE_FROM or not self.varies.all():
            return False
        light = self.excess_kurtosis <= 0.5 * self.M ** (1 / 3)
        return bool(np.all(light & (self.largest < 0.5 * self.visible)))


def element_statistics(slices: Array) -> ElementStatistics:
    """Moments of the elements of each slice, shape ``(slices, rows, cols)``."""
    count, rows, cols = slices.shape
    N, M = max(rows, cols), min(rows, cols)
    flat = slices.reshape(count, -1)
    mean = flat.mean(axis=1)
    square = np.square(flat - mean[:, None])
    variance = square.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a constant slice has no kurtosis
        kurtosis = np.einsum("ij,ij->i", square, square) / (flat.shape[1] * variance**2) - 3
    largest = square.max(axis=1)
    trimmed = variance.copy()
    for k in np.flatnonzero(largest >= variance * (N * M) ** 0.5):
        kept = flat[k][square[k] < variance[k] * (N * M) ** 0.5]
        trimmed[k] = kept.var() if kept.size else 0.0
    return ElementStatistics(mean, np.sqrt(variance), trimmed, kurtosis, np.sqrt(largest), N, M)


class Shuffler:
    """Draws the permutations, the same ones for the same seed, layer and shape, at every measurement.

    The draw depends on nothing else, so that a curve moves because the layer moved. The process's random streams are
    not touched.
    """

    def __init__(self, seed: int = 0, *, max_cached_bytes: int = MAX_CACHED_BYTES) -> None:
        """Keep at most ``max_cached_bytes`` of permutations; a layer beyond that is drawn again each time."""
        self.seed = seed
        self._free = max_cached_bytes
        self._cache: dict[tuple[str, int, int, int], list[NDArray[np.int32]]] = {}

    def shuffle(self, slices: Array, layer: str, *, draw: int = 0) -> Array:
        """Each slice's elements in random order, shape as given; ``draw`` numbers independent shuffles."""
        count, size = slices.shape[0], slices[0].size
        key = (layer, draw, count, size)
        orders = self._cache.get(key)
        if orders is None:
            random = np.random.default_rng([self.seed, draw, *layer.encode()])
            orders = [random.permutation(size).astype(np.int32) for _ in range(count)]
            cost = 4 * count * size
            if draw == 0 and cost <= self._free:
                self._free -= cost
                self._cache[key] = orders
        flat = slices.reshape(count, size)
        return np.stack([row[order] for row, order in zip(flat, orders, strict=True)]).reshape(slices.shape)


def predicted_singular_values(slices: Array, statistics: ElementStatistics) -> Array:
    """The shuffle's spectrum without a shuffle.

    Marchenko–Pastur quantiles of the variance without the large elements, and above them one spike for each element,
    and for a mean, that is large enough to be seen.

    Args:
        slices: Shape ``(slices, rows, cols)``.
        statistics: Of the same slices.

    Returns:
        Shape ``(slices, M)``, ascending within a slice.
    """
    N, M = statistics.N, statistics.M
    bulk = marchenko_pastur.bulk_quantiles(N, M)
    predicted = []
    for k, matrix in enumerate(slices):
        scale = statistics.trimmed_variance[k] ** 0.5 or statistics.std[k]
        deviations = np.abs(matrix - statistics.mean[k]).ravel() if statistics.has_visible_elements[k] else np.empty(0)
        strengths = [*deviations[deviations >= statistics.visible[k]], abs(statistics.mean[k]) * (N * M) ** 0.5]
        places = (marchenko_pastur.spike_position(float(strength / scale), N, M) for strength in strengths)
        spikes = sorted(place for place in places if place is not None)[-M:]
        values = bulk.copy()
        if spikes:
            values[-len(spikes) :] = np.maximum(values[-len(spikes) :], spikes)
        predicted.append(np.sqrt(values) * scale)
    return np.stack(predicted)


def jensen_shannon_distance(eigenvalues: Array, others: Array) -> float:
    """``√(½[KL(p‖m) + KL(q‖m)])`` between two spectra as lists: ascending, each scaled to sum 1, in nats.

    From 0 to √ln 2 = 0.83. WeightWatcher's rand_distance: between ranked eigenvalues, not between histograms.

    Args:
        eigenvalues: Not negative, shape ``(n,)``.
        others: The same.
    """
    p, q = (np.sort(x) / x.sum() for x in (eigenvalues, others))
    m = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(p > 0, p * np.log(p / m), 0.0).sum() + np.where(q > 0, q * np.log(q / m), 0.0).sum()
    return float(np.sqrt(max(0.0, divergence / 2)))


def trap_scores(shuffled: Array, statistics: ElementStatistics) -> Array | None:
    """How far each eigenvalue of the shuffle lies beyond the edge of noise, in Tracy–Widom units.

    ``z = (λ/σ² - μ)/τ``, σ² the variance without the large elements.

    Args:
        shuffled: Singular values of the shuffled slices, shape ``(slices, M)``.
        statistics: Of the same slices.

    Returns:
        Shape as given, NaN for slices whose elements are alike; ``None`` where no slice has an edge.
    """
    usable = statistics.varies & (statistics.trimmed_variance > 0)
    if statistics.N < 2 or not usable.any():
        return None
    mu, tau = marchenko_pastur.edge_statistics(statistics.N, statistics.M)
    variance = np.where(usable, statistics.trimmed_variance, np.nan)
    return np.asarray((np.square(shuffled) / variance[:, None] - mu) / tau)


def rank_deficit(singular_values: Array, shuffled: Array) -> float:
    """The share of singular values at or below a tenth of the same-rank one of their own slice's shuffle.

    Args:
        singular_values: Shape ``(slices, M)``, ascending within a slice.
        shuffled: The same, of the shuffle.

    Returns:
        Between 0 and 1; a zero slice counts in full.
    """
    return float((singular_values <= COLLAPSED * shuffled).mean())
