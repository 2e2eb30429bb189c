"""Comparisons of a layer with its shuffle: rand_distance, correlation traps, and rank deficit.

A layer's shuffle is its matrix with the elements in random order, which destroys their correlations. Eigenvalues of the
shuffle beyond the Marchenko–Pastur bulk come from a few large elements, or from a mean that is not zero. Differences
between the spectra of a layer and of its shuffle come from learned structure.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lightning_ww.weights import marchenko_pastur
from lightning_ww.weights.elements import ElementStatistics, element_statistics
from lightning_ww.weights.spectrum import singular_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_ww.weights.elements import Elements

    Array = NDArray[np.float64]

MAX_CACHED_BYTES = 64 * 2**20
"""The most bytes of permutations kept for the next measurement; beyond that they are drawn again."""

GATHERED = 1 << 18
"""The number of elements that are put in random order at once."""

FEWEST_DRAWS, MOST_DRAWS, DRAWN_EIGENVALUES = 4, 16, 4096
"""The number of predicted spectra: as many as have this number of eigenvalues in all, since large ones scatter less."""

COLLAPSED = 0.1
"""A singular value counts toward rank_deficit up to this share of the shuffle's singular value of equal rank."""


class Shuffler:
    """A source of permutations, which depend only on the seed and on the number of elements.

    So they are equal at every measurement, and a number changes only if the layer changes. The process's random streams
    are not touched.
    """

    def __init__(self, seed: int = 0, *, max_cached_bytes: int = MAX_CACHED_BYTES) -> None:
        """Keep at most ``max_cached_bytes`` of permutations; those of further sizes are drawn again each time."""
        self.seed = seed
        self._max_cached_bytes = max_cached_bytes
        self._cache: dict[tuple[int, int, int], NDArray[np.int32]] = {}

    def __getstate__(self) -> dict[str, object]:
        """Leave out the permutations, which can be drawn again."""
        return {**vars(self), "_cache": {}}

    def shuffle(self, slices: Elements, *, draw: int = 0) -> Elements:
        """Return each slice's elements in random order, shape as given; each ``draw`` is an independent shuffle.

        Args:
            slices: Shape ``(slices, rows, cols)``. The k-th slices of layers of equal size have the same permutation.
            draw: The number of the shuffle. Default: ``0``.
        """
        count, size = slices.shape[0], slices[0].size
        flat = slices.reshape(count, size)
        shuffled = np.empty_like(flat)
        for k in range(count):
            order = self._order(draw, k, size)
            for start in range(0, size, GATHERED):  # numpy widens the positions to 64 bits
                some = slice(start, start + GATHERED)
                np.take(flat[k], order[some], mode="clip", out=shuffled[k, some])
        return shuffled.reshape(slices.shape)

    def _order(self, draw: int, number: int, size: int) -> NDArray[np.int32]:
        """The permutation of the slice of this number."""
        key = (draw, number, size)
        order = self._cache.get(key)
        if order is None:
            order = np.arange(size, dtype=np.int32)
            np.random.default_rng([self.seed, *key]).shuffle(order)
            kept = sum(other.nbytes for other in tuple(self._cache.values()))  # other threads keep theirs, too
            if draw == 0 and kept + order.nbytes <= self._max_cached_bytes:
                self._cache[key] = order
        return order


def predicted_spectra(
    slices: Elements, statistics: ElementStatistics, *, seed: int = 0, is_centered: bool = False
) -> Array:
    """Predict the singular values of shuffles, several times, without drawing them.

    They are those of noise with the moments of the elements, large ones left out. Above them there is a spike for each
    element of the visible size, and for the mean if it is large enough. The squares of all add up to those of the
    elements, as the shuffle's do. The noise is drawn, from its bidiagonal form: Marchenko–Pastur quantiles have no
    scatter, so that every layer would seem closer to them than to a shuffle.

    Args:
        slices: The layer's slices, shape ``(slices, rows, cols)``.
        statistics: The moments of their elements.
        seed: The seed of the noise, which depends on it and on the shape alone. Default: ``0``.
        is_centered: Whether the mean of the elements is left out. Default: ``False``.

    Returns:
        Singular values, shape ``(draws, slices, M)``, ascending within a slice.
    """
    N, M, count = statistics.N, statistics.M, len(slices)
    draws = max(FEWEST_DRAWS, min(MOST_DRAWS, DRAWN_EIGENVALUES // (M * count)))
    predicted = np.empty((draws, count, M))
    for k, matrix in enumerate(slices):
        variance = statistics.trimmed_variance[k] or statistics.std[k] ** 2
        deviations = np.abs(matrix - statistics.mean[k]).ravel() if statistics.has_visible_elements[k] else np.empty(0)
        mean = 0.0 if is_centered else statistics.mean[k]
        strengths = [*deviations[deviations >= statistics.visible[k]], abs(mean) * (N * M) ** 0.5]
        places = (marchenko_pastur.spike_position(float(strength / variance**0.5), N, M) for strength in strengths)
        spikes = variance * np.sort([place for place in places if place is not None])[-M:]
        left = M - spikes.size
        if left:  # each spike takes up a row and a column
            noise = marchenko_pastur.noise_eigenvalues(N - spikes.size, left, draws * count, seed)[k::count]
            kurtosis = min(float(statistics.excess_kurtosis[k]), statistics.most_kurtosis)
            noise = marchenko_pastur.with_kurtosis(noise, N, M, kurtosis)
            rest = N * M * (mean**2 + statistics.std[k] ** 2) - spikes.sum()
            predicted[:, k, :left] = noise * (max(rest, 0.0) / noise.sum(axis=1, keepdims=True))
        predicted[:, k, left:] = spikes
    return np.asarray(np.sqrt(np.sort(predicted, axis=2)))


def jensen_shannon_distance(eigenvalues: Array, others: Array) -> float:
    """The Jensen–Shannon distance ``√(½[KL(p‖m) + KL(q‖m)])`` between two spectra p and q with the mean m, in nats.

    Each spectrum is a list of eigenvalues in ascending order, scaled to sum 1. The distance is from 0 to √ln 2 = 0.83. It
    is WeightWatcher's rand_distance, which compares ranked eigenvalues, not histograms.

    Args:
        eigenvalues: Eigenvalues of a spectrum, not negative, shape ``(n,)``.
        others: Eigenvalues of the other spectrum, not negative, shape ``(n,)``; or of several, shape ``(spectra, n)``: then
            the result is the root mean square of the distances.
    """
    p, q = (np.sort(x, axis=-1) / x.sum(axis=-1, keepdims=True) for x in (eigenvalues, np.atleast_2d(others)))
    m = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / m), 0.0) + np.where(q > 0, q * np.log(q / m), 0.0)
    return float(np.sqrt(np.maximum(terms.sum(axis=1) / 2, 0.0).mean()))


@lru_cache(maxsize=256)
def floor_of_shape(N: int, M: int, count: int, seed: int = 0) -> float:
    """The distance of noise of this shape from its own prediction: the floor of layers whose shuffle is predicted.

    The noise is Gaussian. Elements whose shuffle can be predicted change the floor by less than a seventh (measured), once a
    mean that is not zero is allowed for: its spikes are alike in both spectra, so the floor of the rest is to be multiplied
    by the square root of `ElementStatistics.noise_share`. So it is computed once a shape.

    Args:
        N: Long side.
        M: Short side.
        count: The number of slices.
        seed: The seed of the noise. Default: ``0``.
    """
    noise = np.random.default_rng([seed, N, M, count]).standard_normal((count, N, M), dtype=np.float32)
    own = np.square(singular_values(noise)).ravel()
    predicted = predicted_spectra(noise, element_statistics(noise), seed=seed)
    return jensen_shannon_distance(own, np.square(predicted).reshape(len(predicted), -1))


def trap_scores(shuffled: Array, statistics: ElementStatistics) -> Array | None:
    """The distance of each eigenvalue of the shuffle beyond the edge of noise, in Tracy–Widom units.

    It is ``z = (λ/σ² - μ)/τ``, where σ² is the variance without the large elements.

    Args:
        shuffled: Singular values of the shuffle, shape ``(slices, M)``, or some of them.
        statistics: The moments of the slices' elements.

    Returns:
        Distances, shape as given, NaN for slices whose elements are alike; ``None`` if no slice has an edge of noise.
    """
    usable = statistics.varies & (statistics.trimmed_variance > 0)
    if statistics.N < 2 or not usable.any():
        return None
    mu, tau = marchenko_pastur.edge_statistics(statistics.N, statistics.M)
    variance = np.where(usable, statistics.trimmed_variance, np.nan)
    return np.asarray((np.square(shuffled) / variance[:, None] - mu) / tau)


def rank_deficit(singular_values: Array, shuffled: Array) -> float:
    """The share of singular values at or below a tenth of the shuffle's singular value of equal slice and rank.

    Args:
        singular_values: The layer's singular values, shape ``(slices, M)``, ascending within a slice.
        shuffled: The shuffle's singular values, same shape and order.

    Returns:
        A share from 0 to 1; all singular values of a zero slice count.
    """
    return float((singular_values <= COLLAPSED * shuffled).mean())
