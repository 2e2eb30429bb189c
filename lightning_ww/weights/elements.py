"""The distribution of a weight's elements: moments, the largest, and whether noise of such elements can be predicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Elements = NDArray[np.float32] | NDArray[np.float64]
"""Elements as they are stored: float32 also for shorter dtypes, which it holds exactly."""

PREDICTABLE_FROM = 256
"""The smallest short side at which a shuffle's spectrum is predicted; below it a draw is more accurate."""

BLOCK = 1 << 15
"""The number of elements that are worked on at once: 256 KiB of float64, which stays in a core's cache."""


@dataclass(frozen=True)
class ElementStatistics:
    """Moments of each slice's elements; every field has shape ``(slices,)``."""

    mean: Array
    std: Array
    trimmed_variance: Array  # without the elements that the shuffle's spectrum shows: |w - mean| ≥ std·(NM)^¼
    excess_kurtosis: Array
    largest: Array  # max |w - mean|
    N: int
    M: int

    @property
    def visible(self) -> Array:
        """The distance from the mean at which an element shows as a spike of the shuffle's spectrum, ``std·(NM)^¼``."""
        return np.asarray(self.std * (self.N * self.M) ** 0.25)

    @property
    def has_visible_elements(self) -> NDArray[np.bool_]:
        """Tell whether each slice has an element of at least the visible size."""
        return np.asarray(self.varies & (self.largest >= self.visible))

    @property
    def varies(self) -> NDArray[np.bool_]:
        """Tell whether the elements of each slice differ by more than rounding."""
        return np.asarray(self.std > 1e-12 * np.abs(self.mean))

    @property
    def noise_share(self) -> float:
        """The share of the sum of the squared elements that is left without the slices' means."""
        variance = np.square(self.std)
        return float(variance.sum() / (variance + np.square(self.mean)).sum())

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
        """Tell whether the shuffle's spectrum can be predicted accurately.

        This needs ``M ≥ 256``, an excess kurtosis of at most `most_kurtosis`, and no element beyond half of the visible
        size. Then the prediction differs from a draw by less than two draws differ from each other (measured).
        """
        if self.M < PREDICTABLE_FROM or not self.varies.all():
            return False
        light = self.excess_kurtosis <= self.most_kurtosis
        return bool(np.all(light & (self.largest < 0.5 * self.visible)))

    @property
    def most_kurtosis(self) -> float:
        """The largest excess kurtosis of elements whose shuffle's spectrum can be predicted accurately, ``½ M^⅓``."""
        return float(0.5 * self.M ** (1 / 3))


def element_statistics(slices: Elements) -> ElementStatistics:
    """Compute the moments of each slice's elements, of slices of shape ``(slices, rows, cols)``, in float64."""
    count, rows, cols = slices.shape
    N, M, size = max(rows, cols), min(rows, cols), rows * cols
    flat = slices.reshape(count, size)
    mean, variance, fourth, largest = (np.zeros(count) for _ in range(4))
    for some, block in blocks(flat):
        mean[some] += block.sum(axis=1)
    mean /= size
    for some, block in blocks(flat):
        square = _squared_deviations(block, mean[some])
        variance[some] += square.sum(axis=1)
        fourth[some] += np.einsum("ij,ij->i", square, square)
        largest[some] = np.maximum(largest[some], square.max(axis=1))
    variance /= size
    with np.errstate(divide="ignore", invalid="ignore"):  # a constant slice has no kurtosis
        kurtosis = fourth / (size * variance**2) - 3
    visible = variance * (N * M) ** 0.5
    trimmed = variance.copy()
    for k in np.flatnonzero(largest >= visible):
        trimmed[k] = _variance_below(flat[k : k + 1], float(mean[k]), float(visible[k]))
    return ElementStatistics(mean, np.sqrt(variance), trimmed, kurtosis, np.sqrt(largest), N, M)


def blocks(flat: Elements, *others: Elements) -> Iterator[tuple[Any, ...]]:
    """Cut rows of elements into blocks that fit into a core's cache, in float64.

    Args:
        flat: Shape ``(slices, elements)``.
        others: Arrays of the same shape.

    Yields:
        The rows of the block, as a slice, and the block of each array, which is a copy.
    """
    count, size = flat.shape
    together = max(1, BLOCK // max(size, 1))
    for first in range(0, count, together):
        some = slice(first, first + together)
        for start in range(0, size, BLOCK):
            yield some, *(x[some, start : start + BLOCK].astype(np.float64) for x in (flat, *others))


def _squared_deviations(block: Array, mean: Array) -> Array:
    """The squares of the elements less their mean, in place."""
    block -= mean[:, None]
    return np.square(block, out=block)


def _variance_below(row: Elements, mean: float, limit: float) -> float:
    """The variance of the elements whose squared deviation from the mean is below a limit."""
    number, total, squares = 0, 0.0, 0.0
    for _, block in blocks(row):
        block -= mean
        kept = block[np.square(block) < limit]
        number, total, squares = number + kept.size, total + kept.sum(), squares + np.einsum("i,i->", kept, kept)
    return max(squares / number - (total / number) ** 2, 0.0) if number else 0.0
