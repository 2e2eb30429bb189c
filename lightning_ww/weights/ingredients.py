"""The ingredients of a layer's metrics, each computed once, when a metric first needs it.

An ingredient that a layer does not have raises `NoValueError`. The message becomes the reason of every metric that needs
the ingredient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from lightning_ww._errors import NoValueError
from lightning_ww.weights import drift, shuffle
from lightning_ww.weights import spectrum as spectra
from lightning_ww.weights.attention import Heads, logit_scale
from lightning_ww.weights.elements import ElementStatistics, element_statistics
from lightning_ww.weights.hill_null import hill_null
from lightning_ww.weights.kept_shuffle import KeptShuffle
from lightning_ww.weights.marchenko_pastur import MarchenkoPasturFit, fit_marchenko_pastur, tracy_widom_threshold
from lightning_ww.weights.power_law import PowerLawFit, bootstrap_stderr, fit_power_law
from lightning_ww.weights.shuffle import Shuffler
from lightning_ww.weights.shuffled import Keeping, Shuffle, Shuffled
from lightning_ww.weights.slices import check_finite
from lightning_ww.weights.update import Update, update_since

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from lightning_ww.weights.elements import Elements

    Array = NDArray[np.float64]

SMALLEST, LARGEST = 1e-60, 1e60
"""The range of the largest element in which sums of fourth powers neither overflow nor lose digits by underflow."""


@dataclass(frozen=True)
class Request:
    """The options of an analysis: the inputs that are requested for every layer in addition to its own spectrum."""

    shuffler: Shuffler
    shuffle: Shuffle = "auto"
    initial: Mapping[str, Tensor] | None = None  # slices by layer name
    previous: Mapping[str, Tensor] | None = None  # slices at an earlier moment by layer name
    attention: Mapping[str, Heads] | None = None  # keys by layer of queries
    mp_fit: bool = False
    cka: bool = False
    bootstrap: int = 0  # the number of draws
    floors: Mapping[str, float] | None = field(default_factory=dict)  # known floors by layer; None: measure them
    kept: Mapping[str, KeptShuffle] | None = None  # earlier shuffles by layer; None: none is used, and none kept

    def asks_for(self, need: str, layer: str) -> bool:
        """Tell whether an input that a metric needs is requested for this layer."""
        if need == "shuffle":
            return self.shuffle != "off"
        if need in ("initial", "previous", "attention"):
            return getattr(self, need) is not None
        if need == "floor":
            return self.floors is None or layer in self.floors
        if need == "bootstrap":
            return self.bootstrap > 0
        return self.mp_fit if need == "mp_fit" else self.cka

    def options(self, layer: str) -> tuple[object, ...]:
        """What determines a layer's report besides its weight; initial weights and floors do not change in a run."""
        needs = ("initial", "mp_fit", "cka", "bootstrap")
        return (
            self.shuffler.seed,
            self.shuffle,
            layer in (self.initial or {}),
            None if (heads := (self.attention or {}).get(layer)) is None else heads.fingerprint,
            *(self.asks_for(n, layer) for n in needs),
        )


class Ingredients:
    """The matrices of one layer, and the quantities that follow from them.

    Args:
        layer: The layer's name.
        stored: The layer's slices, shape ``(slices, rows, cols)``, in their stored dtype.
        request: The options of the analysis.

    Raises:
        UnreadableWeightError: If an element is not finite.
    """

    def __init__(self, layer: str, stored: Tensor, request: Request) -> None:
        self._layer, self._request, self._dtype = layer, request, stored.dtype
        _, rows, cols = stored.shape
        self.N, self.M = max(rows, cols), min(rows, cols)
        self._wide = torch.float64 if stored.dtype == torch.float64 else torch.float32  # exact for shorter dtypes
        self.slices: Elements = stored.to(device="cpu", dtype=self._wide).contiguous().numpy()
        self.unit = 1.0
        if self._wide == torch.float64:  # squares of the other dtypes' elements fit into float64
            self.unit = unit_of(self.slices)
            self.slices = self.slices if self.unit == 1.0 else self.slices / self.unit
        self._elements = element_statistics(self.slices)
        if not np.isfinite(self._elements.mean).all():
            check_finite(stored)

    @property
    def is_approximate(self) -> bool:
        """Tell whether the matrix is too large to be decomposed."""
        return self.M > spectra.MAX_EXACT

    @property
    def is_vector(self) -> bool:
        """Tell whether each slice has a single row or column."""
        return self.M == 1

    @cached_property
    def zero_share(self) -> float:
        """The share of elements that are exactly zero, as under a mask."""
        return 1 - np.count_nonzero(self.slices) / self.slices.size

    @cached_property
    def spectrum(self) -> spectra.Spectrum:
        """All singular values, by one decomposition per slice."""
        if self.is_approximate:
            most = spectra.MAX_EXACT
            raise NoValueError(f"a spectrum of {self.M} eigenvalues per matrix is not computed (at most {most})")
        singular = spectra.singular_values(self.slices, precise=self._dtype == torch.float64)
        return spectra.Spectrum(singular, self.N, spectra.storage_eps(self._dtype))

    @property
    def own_spectrum(self) -> spectra.Spectrum:
        """The spectrum in the weight's own unit; its squares may leave the range of float64."""
        if self.unit == 1.0:
            return self.spectrum
        return replace(self.spectrum, singular_values=self.spectrum.singular_values * self.unit)

    @property
    def live(self) -> spectra.Spectrum:
        """The spectrum, if the weight is not zero."""
        if not self.spectrum.eigenvalues[-1] > 0:
            raise NoValueError("the weight is zero")
        return self.spectrum

    def eigenvalue(self, scaled: float) -> float:
        """An eigenvalue in the weight's own unit."""
        value = float(scaled) * self.unit * self.unit
        if not np.isfinite(value) or (value == 0) != (scaled == 0):
            raise NoValueError("its square is outside the range of float64")
        return value

    def log10(self, eigenvalue: float) -> float:
        """The logarithm of an eigenvalue in the weight's own unit."""
        return float(np.log10(eigenvalue) + 2 * np.log10(self.unit))

    @cached_property
    def sv_max(self) -> float:
        """The largest singular value of any slice, by Lanczos if the matrix is too large to be decomposed."""
        if self.is_approximate:
            return max(spectra.largest_singular_value(matrix) for matrix in self.slices)
        return self.spectrum.sv_max

    @property
    def sum_and_largest(self) -> tuple[float, float]:
        """``Σλ`` and ``λ_max``, if the weight is not zero."""
        if not self.is_approximate:
            eigenvalues = self.live.eigenvalues
            return float(eigenvalues.sum()), float(eigenvalues[-1])
        if not self.sv_max > 0:
            raise NoValueError("the weight is zero")
        elements = self._elements  # Σλ = Σw² = count · (variance + mean²)
        return float(self.N * self.M * (elements.std**2 + elements.mean**2).sum()), self.sv_max**2

    @cached_property
    def fit(self) -> PowerLawFit:
        """The power law of the spectrum's tail."""
        return fit_power_law(self.live.eigenvalues)

    @property
    def bootstrap_stderr(self) -> float:
        """The standard error of alpha with xmin searched in each draw."""
        request = self._request
        return bootstrap_stderr(self.live.eigenvalues, self.fit, request.bootstrap, seed=request.shuffler.seed)

    @cached_property
    def bulk(self) -> MarchenkoPasturFit:
        """The Marchenko–Pastur bulk fitted to the spectrum."""
        if self.is_vector:
            raise NoValueError("matrices with a single row or column have no bulk")
        live = self.live.eigenvalues
        live = live[live > spectra.NEGLIGIBLE * live[-1]]
        rows, cols = (int(self.slices.any(axis=(0, axis)).sum()) for axis in (2, 1))  # without dead rows and columns
        rank = -(-live.size // len(self.slices))  # of duplicate rows, too
        return fit_marchenko_pastur(live, max(rows, cols), min(rows, cols, rank))

    @property
    def elements(self) -> ElementStatistics:
        """The moments of the elements, if these are not all alike."""
        if self.is_vector:
            raise NoValueError("a matrix with a single row or column has no shuffle that differs")
        if not self._elements.varies.any():
            raise NoValueError("the weight is zero" if not self._elements.mean.any() else "all elements are alike")
        return self._elements

    @cached_property
    def shuffle(self) -> Shuffled:
        """The layer's shuffle."""
        if self.is_vector:
            raise NoValueError(
                "a matrix with a single row or column has one singular value, whatever its elements' order"
            )
        request = self._request
        keeping = None if request.kept is None else Keeping(request.kept.get(self._layer))
        return Shuffled(self.slices, self._elements, request.shuffler, request.shuffle, keeping)

    @cached_property
    def shuffled(self) -> Array:
        """The shuffle's singular values, shape ``(slices, M)``, ascending within a slice: the mean over predicted draws."""
        return np.asarray(self.shuffle.draws.mean(axis=0))

    def distance_to_shuffle(self, eigenvalues: Array) -> float:
        """The Jensen–Shannon distance of a spectrum to the shuffle's, the root mean square over predicted draws."""
        _, draws = self.live, self.shuffle.draws
        return shuffle.jensen_shannon_distance(eigenvalues, np.square(draws).reshape(len(draws), -1))

    @cached_property
    def shuffled_eigenvalues(self) -> Array:
        """The shuffle's eigenvalues, shape ``(slices, M)``, if the weight is not zero."""
        _ = self.live
        return np.square(self.shuffled)

    @cached_property
    def trap_scores(self) -> Array:
        """The distance of each eigenvalue of the shuffle beyond the edge of noise, shape ``(slices, M)``."""
        _ = self.live
        scores = shuffle.trap_scores(self.shuffled, self._elements)
        if scores is None:
            raise NoValueError("all elements of a slice are alike, so that its shuffle is no noise")
        return scores

    @property
    def centered_trap_scores(self) -> Array:
        """The same of the largest eigenvalue without the elements' mean, shape ``(slices, 1)``."""
        _ = self.trap_scores
        scores = shuffle.trap_scores(self.shuffle.largest_centered[:, None], self._elements)
        assert scores is not None
        return scores

    @property
    def attention_logit_scale(self) -> float | None:
        """The largest singular value of any head's ``W_qᵀ W_k``."""
        return logit_scale(self._request.attention, self._layer, self.slices[0] * np.float64(self.unit))

    @property
    def entropy(self) -> float | None:
        """The spectrum's entropy over the largest possible one."""
        rank = self.live.matrix_rank
        return self.live.shannon_entropy / float(np.log(rank)) if rank > 1 else None

    @cached_property
    def detx_num(self) -> int:
        """The fewest of the largest eigenvalues, scaled to mean 1, whose product is below 1."""
        return self.live.determinant_constraint()

    @cached_property
    def traps(self) -> Array:
        """The shuffle's eigenvalues above a size that noise exceeds once in a thousand."""
        return self.shuffled_eigenvalues[self.trap_scores > tracy_widom_threshold(len(self.slices))]

    @property
    def floor(self) -> float:
        """The `rand_distance` of a shuffle of the layer: what noise of these elements has."""
        if self._request.floors is not None:
            return self._request.floors[self._layer]
        if self.shuffle.is_predicted and self._elements.predictable:
            gaussian = shuffle.floor_of_shape(self.N, self.M, len(self.slices), self._request.shuffler.seed)
            return float(gaussian * self._elements.noise_share**0.5)
        return self.distance_to_shuffle(np.square(self.shuffle.another()).ravel())

    @property
    def hill_null(self) -> tuple[float, float]:
        """The mean and the standard deviation of `alpha_hill` over noise of the layer's shape."""
        if self.is_vector or self.is_approximate:
            raise NoValueError("only matrices that are decomposed are compared with noise")
        return hill_null(self.N, self.M, len(self.slices))

    @cached_property
    def drift(self) -> drift.Drift:
        """The distances from the initial weight."""
        initial = self._earlier(self._request.initial, "initial", "the initial weights hold no such layer")
        return drift.distance_from_init(self.slices, initial, cka=self._request.cka)

    @cached_property
    def update(self) -> Update:
        """The update since the earlier weights."""
        none = "there is no earlier weight, since this is the first measurement of the layer in this fit"
        return update_since(self.slices, self._earlier(self._request.previous, "earlier", none))

    def _earlier(self, kept: Mapping[str, Tensor] | None, word: str, none: str) -> Elements:
        """The layer's slices at another moment, in the same unit."""
        before = (kept or {}).get(self._layer)
        if before is None:
            raise NoValueError(none)
        if before.shape != self.slices.shape:
            raise NoValueError(f"the {word} weight has slices of shape {tuple(before.shape)}")
        slices: Elements = before.to(device="cpu", dtype=self._wide).numpy()
        return slices if self.unit == 1.0 else slices / self.unit


def unit_of(slices: Elements) -> float:
    """The power of two in whose unit the elements are measured: 1, unless their fourth powers could leave float64's range."""
    largest = float(np.abs(slices).max())
    if largest == 0 or not np.isfinite(largest) or SMALLEST < largest < LARGEST:
        return 1.0
    return float(2.0 ** np.frexp(largest)[1]) if largest < LARGEST else float(2.0 ** (np.frexp(largest)[1] - 1))
