"""The singular values of matrices, and the norms, ranks and entropies that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from lightning_ww import _blas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_ww.weights.elements import Elements

    Array = NDArray[np.float64]

MAX_EXACT = 8192
"""The largest short side at which the whole spectrum is computed; the cost grows with its cube."""

SMALL_MATRIX = 64
"""Matrices up to this order are multiplied in one batch; larger ones one by one, where `A.T @ A` costs half."""

GRAM_LOSES_DIGITS = 1e-10
"""The λ_min/λ_max of a float64 weight below which its Gram matrix has lost too many digits of λ_min."""

NEGLIGIBLE = 1e-12
"""The share of λ_max up to which an eigenvalue of a Gram matrix may be float64's rounding."""

CHUNK = 1 << 21
"""The number of elements of a matrix that are brought to float64 and multiplied at once (16 MiB)."""

FLOAT32_EPS = float(torch.finfo(torch.float32).eps)


@dataclass(frozen=True)
class Spectrum:
    """The singular values of a layer's slices, and the quantities that follow from them.

    ``N`` is the long side of a slice, and ``M`` the short side. ``eigenvalues`` are the squared singular values of all
    slices together; the matrices are **not** divided by √N.
    """

    singular_values: Array  # (slices, M), ascending within a slice
    N: int
    eps: float  # the relative rounding of the stored weight, at most float32's

    @property
    def M(self) -> int:  # noqa: D102, N802 - the field's name of the short side
        return int(self.singular_values.shape[1])

    @cached_property
    def eigenvalues(self) -> Array:
        """Squares of all singular values, ascending, shape ``(n,)``."""
        return np.sort(np.square(self.singular_values), axis=None)

    @property
    def sv_max(self) -> float:  # noqa: D102
        return float(self.singular_values.max())

    @property
    def sv_min(self) -> float:
        """The smallest singular value of any slice."""
        return float(self.singular_values.min())

    @cached_property
    def matrix_rank(self) -> int:
        """The number of singular values above ``2 · eps · s_max`` of their slice (``√N · eps · s_max`` in float64).

        Exactly deficient float32 matrices read at most 1.2 eps · s_max, whatever their size. Numpy's own tolerance,
        ``N · eps · s_max``, calls healthy square layers rank-deficient from about N = 1000 on: their smallest singular
        value is about ``s_max / 2N``. It is below 2 eps · s_max about once in 250 at N = 8192. A float64 matrix has no
        more digits than its decomposition, whose rounding grows with √N.
        """
        return int((self.above_rounding > 0).sum())

    @cached_property
    def above_rounding(self) -> Array:
        """The singular values, shape ``(slices, M)``; those at or below the tolerance of `matrix_rank` are set to zero."""
        roundings = 2.0 if self.eps >= FLOAT32_EPS else max(2.0, self.N**0.5)
        tolerance = roundings * self.eps * self.singular_values.max(axis=1, keepdims=True)
        return np.where(self.singular_values > tolerance, self.singular_values, 0.0)

    @property
    def condition_number(self) -> float | None:
        """``sv_max / sv_min``, or ``None`` if a singular value is at or below the tolerance of `matrix_rank`."""
        return self.sv_max / self.sv_min if self.above_rounding.min() > 0 else None

    @property
    def stable_rank(self) -> float:
        """``Σλ / λ_max``; needs a matrix that is not zero."""
        return float(self.eigenvalues.sum() / self.eigenvalues[-1])

    @cached_property
    def shannon_entropy(self) -> float:
        """``-Σ p ln p`` of ``p = λ/Σλ``, in nats; needs a matrix that is not zero."""
        p = self.eigenvalues / self.eigenvalues.sum()
        p = p[p > 0]
        return max(0.0, float(-(p * np.log(p)).sum()))

    def log_sum_power(self, exponent: float) -> float:
        """``log10 Σ λ^exponent``, without overflow; needs a matrix that is not zero."""
        logs = exponent * np.log(self.eigenvalues[self.eigenvalues > 0])
        return float((logs[-1] + np.log(np.exp(logs - logs[-1]).sum())) / np.log(10))

    def determinant_constraint(self) -> int:
        """The fewest of the largest eigenvalues, scaled to mean 1, whose product is below 1 (WeightWatcher's detX)."""
        x = self.eigenvalues[::-1] * (self.eigenvalues.size / self.eigenvalues.sum())
        with np.errstate(divide="ignore"):  # a zero eigenvalue ends the product: log 0 = -inf
            below = np.cumsum(np.log(x)) < 0
        return int(np.argmax(below)) + 1 if below.any() else int(x.size)


def storage_eps(dtype: torch.dtype) -> float:
    """The relative rounding of a weight's dtype, at most float32's, since a bf16 weight is exact in float32."""
    return float(min(torch.finfo(dtype).eps, FLOAT32_EPS))


def singular_values(slices: Elements, *, precise: bool = False) -> Array:
    """All singular values of a stack of matrices, by the eigenvalues of their float64 Gram matrices, on one thread.

    Squaring halves the number of digits, and float64 has twice as many as float32. So for float32 weights this is more
    accurate than LAPACK's float32 SVD, and two to three times as fast as its float64 SVD.

    Args:
        slices: The matrices, shape ``(slices, rows, cols)``.
        precise: Whether the matrices have more digits than float32. Then a matrix whose smallest eigenvalue is below
            ``1e-10`` of the largest is itself decomposed. Default: ``False``.

    Returns:
        Singular values, shape ``(slices, min(rows, cols))``, ascending within a slice.
    """
    _, rows, cols = slices.shape
    if min(rows, cols) == 1:  # a vector has one singular value, its norm
        return np.asarray(np.sqrt(np.square(slices.astype(np.float64)).sum(axis=(1, 2)))[:, None])
    tall = slices if rows >= cols else slices.transpose(0, 2, 1)
    if tall.shape[2] <= SMALL_MATRIX:
        tall = tall.astype(np.float64)
        try:
            squares = np.linalg.eigvalsh(tall.transpose(0, 2, 1) @ tall)
        except np.linalg.LinAlgError:
            return np.stack([_by_decomposition(matrix) for matrix in tall])
    else:
        squares = np.stack([_squares(matrix) for matrix in tall])
    values = np.sqrt(np.maximum(squares, 0.0))
    if precise:
        for k in np.flatnonzero(squares[:, 0] < GRAM_LOSES_DIGITS * squares[:, -1]):
            values[k] = _by_decomposition(slices[k])
    return np.asarray(values)


def _squares(tall: Elements) -> Array:
    """The squared singular values of a matrix with at least as many rows as columns, ascending."""
    try:
        return _blas.eigenvalues(gram(tall).astype(np.float64, copy=False))
    except np.linalg.LinAlgError:
        return np.square(_by_decomposition(tall))


def gram(tall: Elements, dtype: type[np.floating] = np.float64) -> NDArray[np.floating]:
    """The upper triangle of ``A.T @ A``, by chunks of rows, so that a large matrix needs no copy in float64."""
    order = tall.shape[1]
    total = np.zeros((order, order), dtype)
    for start in range(0, len(tall), step := max(1, CHUNK // order)):
        _blas.add_gram(total, tall[start : start + step].astype(dtype, copy=False))
    return total


def _by_decomposition(matrix: Elements) -> Array:
    """The singular values of the matrix itself, ascending, by LAPACK's slower and safer method if the fast one fails."""
    try:
        return np.asarray(_blas.singular_values(matrix)[::-1])
    except np.linalg.LinAlgError:
        from scipy.linalg import svd

        return np.asarray(svd(matrix.astype(np.float64), compute_uv=False, lapack_driver="gesvd")[::-1])


def largest_singular_value(matrix: Elements, *, seed: int = 0) -> float:
    """The largest singular value of one large matrix, by ARPACK's Lanczos iteration, to rounding.

    Args:
        matrix: Finite elements, shape ``(rows, cols)``.
        seed: The seed of the start vector. Default: ``0``.
    """
    from scipy.sparse.linalg import svds

    matrix = matrix.astype(np.float64, copy=False)
    scale = float(np.abs(matrix).max())
    if min(matrix.shape) == 1 or scale == 0:  # the singular value of a vector is its norm
        return scale * float(np.linalg.norm(matrix / (scale or 1.0)))
    start = np.random.default_rng(seed).standard_normal(min(matrix.shape))
    return scale * float(svds(matrix / scale, k=1, v0=start, return_singular_vectors=False)[0])
