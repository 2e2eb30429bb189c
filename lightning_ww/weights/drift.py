"""The drift of a layer: the distances of its weight from its initial weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightning_ww import _blas
from lightning_ww.weights.elements import blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_ww.weights.elements import Elements

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """The distances between a layer's weight and its initial weight, over all slices; ``None`` where undefined."""

    distance_from_init: float  # ‖W - W₀‖_F
    distance_from_init_relative: float | None  # ‖W - W₀‖_F / ‖W₀‖_F; None if W₀ = 0
    distance_from_init_cosine: float | None  # 1 - ⟨W, W₀⟩/(‖W‖‖W₀‖); None if either is 0
    distance_from_init_cka: float | None  # 1 - uncentered linear CKA; None if not requested, or either is 0


def distance_from_init(slices: Elements, initial: Elements, *, cka: bool = False) -> Drift:
    """Measure the distances of a weight from its initial values.

    Args:
        slices: The weight, shape ``(slices, rows, cols)``.
        initial: The initial weight, same shape.
        cka: Whether to measure 1 − linear CKA, too: uncentered, ``‖WᵀW₀‖²/(‖WᵀW‖‖W₀ᵀW₀‖)`` in Frobenius norms, where W
            is ``rows × (slices·cols)``. Default: ``False``.
    """
    squares = np.zeros(3)
    for _, now, before in blocks(slices.reshape(1, -1), initial.reshape(1, -1)):
        squares += [np.einsum("ij,ij->", x, x) for x in (now, before, np.subtract(now, before))]
    now, before, moved = (float(square) for square in np.sqrt(squares))
    cosine = similarity = None
    if before > 0 and now > 0:
        # 1 - cos = (‖W - W₀‖² - (‖W‖ - ‖W₀‖)²) / (2‖W‖‖W₀‖): no digits are lost where the two are nearly parallel
        cosine = max((moved**2 - (now - before) ** 2) / (2 * now * before), 0.0)
        if cka:
            similarity = _linear_cka(slices, initial)
    return Drift(
        distance_from_init=moved,
        distance_from_init_relative=moved / before if before > 0 else None,
        distance_from_init_cosine=cosine,
        distance_from_init_cka=None if similarity is None else max(1 - similarity, 0.0),
    )


def _linear_cka(slices: Elements, initial: Elements) -> float:
    """Linear CKA, ``‖WᵀW₀‖²_F = ⟨WWᵀ, W₀W₀ᵀ⟩``, by two Gram matrices of the rows, or of a single tall slice's columns."""
    if slices.shape[0] == 1 and slices.shape[1] > slices.shape[2]:
        # ‖WᵀW₀‖ itself is cols × cols
        w, w0 = (x[0].astype(np.float64) for x in (slices, initial))
        return float(np.square(_blas.product(w.T, w0)).sum()) / (_norm(_blas.gram(w)) * _norm(_blas.gram(w0)))
    w, w0 = (x.transpose(1, 0, 2).reshape(x.shape[1], -1).astype(np.float64) for x in (slices, initial))
    gram, gram0 = _blas.gram(w.T), _blas.gram(w0.T)
    return float(np.einsum("ij,ij->", gram, gram0)) / (_norm(gram) * _norm(gram0))


def _norm(matrix: Array) -> float:
    return float(np.einsum("ij,ij->", matrix, matrix) ** 0.5)
