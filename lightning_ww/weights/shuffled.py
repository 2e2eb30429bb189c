"""The spectrum of a layer's shuffle: predicted, kept from an earlier measurement, or of a shuffle that is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from lightning_ww.weights import shuffle
from lightning_ww.weights.kept_shuffle import KEPT_FROM, KeptShuffle, Outline, outline
from lightning_ww.weights.noise import noise_spectrum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_ww.weights.elements import Elements, ElementStatistics
    from lightning_ww.weights.shuffle import Shuffler

    Array = NDArray[np.float64]

Shuffle = Literal["auto", "exact", "analytic", "off"]
"""The ways of making a shuffle's spectrum that can be asked for."""


@dataclass(frozen=True)
class Keeping:
    """The record of a layer's earlier shuffle, or ``None``, where records are kept."""

    earlier: KeptShuffle | None


@dataclass(frozen=True)
class Shuffled:
    """The shuffle of a layer's slices, shape ``(slices, rows, cols)``, whose short side is not 1."""

    slices: Elements
    elements: ElementStatistics
    shuffler: Shuffler
    asked: Shuffle
    keeping: Keeping | None  # None: no earlier shuffle is used, and none is kept

    @property
    def way(self) -> Literal["exact", "analytic", "kept"]:
        """The way in which the spectrum is made."""
        if self.is_predicted:
            return "analytic"
        if self._earlier is None or self._outline is None:
            return "exact"
        return "exact" if self._outline.is_of(self._earlier) else "kept"

    @property
    def is_predicted(self) -> bool:
        """Tell whether the spectrum is predicted, rather than drawn and decomposed."""
        if self.asked == "analytic":
            return bool(self.elements.varies.all())
        return self.asked == "auto" and self.elements.predictable

    @property
    def draws(self) -> Array:
        """The singular values, shape ``(draws, slices, M)``: one exact draw, or several that are predicted."""
        return self._spectra[0]

    @property
    def largest_centered(self) -> Array:
        """The largest singular value without the elements' mean, shape ``(slices,)``: the mean over the draws."""
        return self._spectra[1]

    @cached_property
    def _spectra(self) -> tuple[Array, Array]:
        if self.is_predicted:
            kinds = [
                shuffle.predicted_spectra(self.slices, self.elements, seed=self.shuffler.seed, is_centered=is_centered)
                for is_centered in (False, True)
            ]
            return kinds[0], kinds[1][:, :, -1].mean(axis=0)
        if self._earlier is not None and self._outline is not None:
            values, largest = self._outline.rescaled(self._earlier)
        else:
            values, largest = self._drawn(0)
        return values[None], largest

    @property
    def to_keep(self) -> KeptShuffle | None:
        """The shuffle to be kept for the next measurement."""
        if self._outline is None:
            return None
        return self._earlier or self._outline.keep(self.draws[0], self.largest_centered, self.shuffler.seed)

    def another(self) -> Array:
        """The singular values of an independent shuffle, shape ``(slices, M)``."""
        return self._drawn(1)[0]

    def _drawn(self, draw: int) -> tuple[Array, Array]:
        return noise_spectrum(self.shuffler.shuffle(self.slices, draw=draw), self.elements.mean)

    @cached_property
    def _outline(self) -> Outline | None:
        """The outline of the elements, if the spectrum may be kept."""
        if self.keeping is None or self.asked != "auto" or self.is_predicted or self.elements.M < KEPT_FROM:
            return None
        return outline(self.slices, self.elements)

    @cached_property
    def _earlier(self) -> KeptShuffle | None:
        """The earlier shuffle, if the elements are distributed as they were then."""
        kept = None if self.keeping is None else self.keeping.earlier
        if kept is None or self._outline is None or not self._outline.is_like(kept, self.shuffler.seed):
            return None
        return kept
