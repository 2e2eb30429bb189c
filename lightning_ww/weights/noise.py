"""The spectrum of a shuffle that was drawn, and its largest singular value without the elements' mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightning_ww import _blas
from lightning_ww.weights.spectrum import SMALL_MATRIX, gram, singular_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_ww.weights.elements import Elements

    Array = NDArray[np.float64]
    Floats = NDArray[np.floating]

MOST_DOMINANT, LARGEST_MEAN = 1e3, 1e25
"""The largest eigenvalue of a Gram matrix in float32, over their median, and their mean: beyond, digits would be lost."""

MOST_IN_FLOAT32 = 2048
"""The largest order of a Gram matrix in float32: beyond, it saves little of the time, and its copy takes memory."""

CONVERGED = 1e-4
"""The residual of the largest Ritz value, over it; the value itself is then good to a thousandth of noise's scatter."""

FIRST_LOOK, LOOK_EVERY, MOST_STEPS = 24, 8, 400
"""The Lanczos steps after which convergence is looked at."""


def noise_spectrum(shuffled: Elements, mean: Array) -> tuple[Array, Array]:
    """The singular values of shuffles, and the largest one of each without the mean of its elements.

    Each is one draw of many, and its distance from the others is a thousand times float32's rounding. So float32 Gram
    matrices will do for float32 elements, in half the time, unless a few eigenvalues dominate.

    Args:
        shuffled: Shape ``(slices, rows, cols)``.
        mean: The mean of each slice's elements, shape ``(slices,)``.

    Returns:
        Singular values, shape ``(slices, M)``, ascending within a slice; and the largest ones, shape ``(slices,)``.
    """
    _, rows, cols = shuffled.shape
    if min(rows, cols) <= SMALL_MATRIX:
        centered = shuffled.astype(np.float64) - mean[:, None, None]
        return singular_values(shuffled), singular_values(centered)[:, -1]
    tall = shuffled if rows >= cols else shuffled.transpose(0, 2, 1)
    pairs = [_of_one(matrix, float(m)) for matrix, m in zip(tall, mean, strict=True)]
    return np.stack([values for values, _ in pairs]), np.array([largest for _, largest in pairs])


def _of_one(tall: Elements, mean: float) -> tuple[Array, float]:
    sums = tall.sum(axis=0, dtype=np.float64)
    if tall.dtype == np.float32 and tall.shape[1] <= MOST_IN_FLOAT32:
        total = gram(tall, np.float32)
        if 1 / LARGEST_MEAN < total.trace() / len(total) < LARGEST_MEAN:
            largest = _largest_centered(total, sums, mean, len(tall))
            try:
                squares = _blas.eigenvalues(total.astype(np.float64))
            except np.linalg.LinAlgError:
                squares = np.array([1.0, np.inf])
            if squares[-1] <= MOST_DOMINANT * np.median(squares):
                return np.sqrt(np.maximum(squares, 0.0)), largest
    largest = _largest_centered(gram(tall), sums, mean, len(tall))
    return singular_values(tall[None])[0], largest


def _largest_centered(total: Floats, sums: Array, mean: float, rows: int) -> float:
    """The largest singular value of a matrix less its mean m, by Lanczos, from its Gram matrix G and its column sums c.

    Its Gram matrix is ``G - m(c1ᵀ + 1cᵀ) + m²·rows·11ᵀ``.
    """
    order = len(total)
    vector = np.random.default_rng(0).standard_normal(order)
    vector /= np.linalg.norm(vector)
    before, beta = np.zeros(order), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    largest = 0.0
    for step in range(1, MOST_STEPS + 1):
        image = _blas.symmetric_product(total, vector.astype(total.dtype)).astype(np.float64)
        image += mean * ((mean * rows * vector.sum() - sums @ vector) - sums * vector.sum()) - beta * before
        alpha = float(image @ vector)
        image -= alpha * vector
        beta = float(np.linalg.norm(image))
        diagonal.append(alpha)
        if not beta > 0 or step in (MOST_STEPS, *range(FIRST_LOOK, MOST_STEPS, LOOK_EVERY)):
            largest, last = _blas.largest_of_tridiagonal(np.array(diagonal), np.array(beside))
            if not beta * abs(last) > CONVERGED * largest:
                break
        beside.append(beta)
        before, vector = vector, image / beta
    return float(np.sqrt(max(largest, 0.0)))
