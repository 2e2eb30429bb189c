"""A shuffle's spectrum that is kept for later measurements, as long as the layer's elements are distributed alike.

Let P be a shuffle of the elements v, and Q the shuffle of the elements w that has the element of equal rank in each place.
Q is as random as P, so its spectrum is as good as any other draw's. By Mirsky's theorem the singular values of P, scaled,
differ from those of Q by at most ``√(Σ (w_(i) - c·v_(i))²)``, the distance between the two sorted lists of elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_ww.weights.elements import Elements, ElementStatistics

    Array = NDArray[np.float64]

KEPT_FROM = 128
"""The smallest short side at which a spectrum is kept; to decompose a smaller matrix takes no longer than to compare it."""

MOST_MOVED = 0.02
"""The largest distance between the sorted elements at which a spectrum is kept, in units of their root mean square.

With this and the next two limits, all numbers differ from those of a new draw by no more than two draws differ (measured).
"""

MOST_MOVED_ELEMENT = 0.3
"""The same for a single element that shows in the shuffle, or nearly so, over ``rms·√(N/M)``."""

MOST_MOVED_MEAN = 0.1
"""The same for a mean that shows in the shuffle, or nearly so, over ``rms/M``."""

SINGLE, WIDENING, FEWEST_BINS = 16, 1.15, 256
"""Of the sorted elements, the outermost ones of each side are kept singly, then means over ever more, up to 1/256 of all."""


@dataclass(frozen=True)
class KeptShuffle:
    """The spectrum of a layer's shuffle, and an outline of the elements that were shuffled."""

    singular_values: Array  # (slices, M), ascending within a slice
    largest_centered: Array  # (slices,): the largest one without the elements' mean
    rms: Array  # (slices,): the root mean square of the elements
    outline: Array  # (slices, bins): the sorted elements, as means over bins, in units of rms
    mean: Array  # (slices,): of the elements, in units of rms
    N: int
    seed: int

    def state_dict(self) -> dict[str, Any]:
        """The record as tensors and numbers, for a checkpoint."""
        return {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def of_state_dict(cls, state: Mapping[str, Any]) -> KeptShuffle:
        """The record that `state_dict` gave."""
        names = ("singular_values", "largest_centered", "rms", "outline", "mean")
        arrays = {name: np.asarray(state[name], dtype=np.float64) for name in names}
        return cls(**arrays, N=int(state["N"]), seed=int(state["seed"]))


@dataclass(frozen=True)
class Outline:
    """The sorted elements of a layer's slices, as means over bins, and the unit in which they are given."""

    means: Array  # (slices, bins), in units of rms
    rms: Array  # (slices,)
    mean: Array  # (slices,), in units of rms
    N: int
    M: int

    def keep(self, singular_values: Array, largest_centered: Array, seed: int) -> KeptShuffle:
        """A record of this shuffle's spectrum.

        Args:
            singular_values: Shape ``(slices, M)``.
            largest_centered: The largest ones without the elements' mean, shape ``(slices,)``.
            seed: The seed of the shuffle.
        """
        return KeptShuffle(singular_values, largest_centered, self.rms, self.means, self.mean, self.N, seed)

    def is_like(self, kept: KeptShuffle, seed: int) -> bool:
        """Tell whether the elements are distributed as those of an earlier shuffle, by this seed and of this shape."""
        shapes = (kept.seed, kept.N, kept.outline.shape, kept.singular_values.shape)
        if shapes != (seed, self.N, self.means.shape, (len(self.means), self.M)):
            return False
        size = self.N * self.M
        moved, visible = np.abs(self.means - kept.outline), size**0.25
        from_mean = np.maximum(np.abs(self.means - self.mean[:, None]), np.abs(kept.outline - kept.mean[:, None]))
        shows, mean_shows = from_mean >= visible / 2, np.maximum(np.abs(self.mean), np.abs(kept.mean)) * visible >= 0.5
        return bool(
            (np.square(moved) @ np.diff(bin_edges(size)) <= MOST_MOVED**2 * size).all()
            and (moved[shows] <= MOST_MOVED_ELEMENT * (self.N / self.M) ** 0.5).all()
            and (np.abs(self.mean - kept.mean)[mean_shows] <= MOST_MOVED_MEAN / self.M).all()
        )

    def rescaled(self, kept: KeptShuffle) -> tuple[Array, Array]:
        """The earlier singular values in the unit of these elements, and the largest ones without the mean."""
        ratio = self.rms / kept.rms
        return kept.singular_values * ratio[:, None], kept.largest_centered * ratio

    def is_of(self, kept: KeptShuffle) -> bool:
        """Tell whether these very elements were shuffled."""
        pairs = ((self.rms, kept.rms), (self.means, kept.outline), (self.mean, kept.mean))
        return all(np.array_equal(now, before) for now, before in pairs)


def outline(slices: Elements, statistics: ElementStatistics) -> Outline:
    """The outline of a layer's elements, each taken to 0.4 %: those with equal leading 16 bits are counted, not sorted.

    Args:
        slices: The layer's slices, shape ``(slices, rows, cols)``.
        statistics: Their moments.
    """
    rms = np.hypot(statistics.std, statistics.mean)
    rms = np.where(rms > 0, rms, 1.0)
    size = slices[0].size
    edges = bin_edges(size)
    means = np.empty((len(slices), len(edges) - 1))
    for k, matrix in enumerate(slices):
        unit = 1.0 if matrix.dtype == np.float32 else rms[k]  # float64 may leave the range of float32
        elements = np.ascontiguousarray(matrix if unit == 1.0 else matrix / unit, dtype=np.float32)
        counts = np.bincount(elements.reshape(-1).view(np.uint32) >> 16)
        bits = np.flatnonzero(counts)
        positive = np.searchsorted(
            bits, 1 << 15
        )  # beyond are negative numbers, the smallest of which have the largest bits
        bits = np.concatenate([bits[positive:][::-1], bits[:positive]])
        middles = ((bits.astype(np.uint32) << 16) | (1 << 15)).view(np.float32).astype(np.float64)
        number = np.cumsum(np.concatenate([[0], counts[bits]])).astype(np.float64)
        total = np.cumsum(np.concatenate([[0.0], counts[bits] * middles]))
        means[k] = np.diff(np.interp(edges, number, total)) / np.diff(edges) * (unit / rms[k])
    return Outline(means, rms, statistics.mean / rms, statistics.N, statistics.M)


@lru_cache(maxsize=256)
def bin_edges(size: int) -> Array:
    """The ranks at which the bins of so many sorted elements begin and end."""
    widest = max(1.0, size / FEWEST_BINS)
    widths = [1.0] * SINGLE
    while widths[-1] < widest:
        widths.append(min(widths[-1] * WIDENING, widest))
    tail = np.concatenate([[0.0], np.cumsum(widths)])
    tail = tail[tail < size / 2]
    inner = np.linspace(tail[-1], size - tail[-1], max(2, int((size - 2 * tail[-1]) / widest) + 1))
    return np.concatenate([tail[:-1], inner, size - tail[-2::-1]])
