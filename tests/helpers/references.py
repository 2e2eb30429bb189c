"""Independent statements of what the package computes, and matrices of known spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_ww import _blas

Array = NDArray[np.float64]


def brute_force_power_law(eigenvalues: Array) -> tuple[float, float, float]:
    """Alpha, xmin and KS distance by trying every candidate in full, straight from the definition."""
    x = np.sort(eigenvalues)
    n = x.size
    best = (np.inf, np.nan, np.nan)
    for i in range(n - 1):
        m = n - i
        total = np.log(x[i:] / x[i]).sum()
        if total <= 1e-3 * m or (n < 20 and m < 8):
            continue
        alpha = 1 + (m if n >= 20 else m - 1) / total
        distance = np.abs(1 - (x[i:] / x[i]) ** (1 - alpha) - np.arange(m) / m).max()
        if distance < best[0]:
            best = (float(distance), float(alpha), float(x[i]))
    return best[1], best[2], best[0]


def matrix_of(singular_values: Array, rows: int, cols: int, seed: int = 0) -> Array:
    """A matrix with these singular values and random singular vectors."""
    random = np.random.default_rng(seed)
    k = len(singular_values)
    left = np.linalg.qr(random.standard_normal((rows, k)))[0]
    right = np.linalg.qr(random.standard_normal((cols, k)))[0]
    return np.asarray((left * singular_values) @ right.T)


def squares(matrix: Array) -> Array:
    """Eigenvalues of ``WᵀW`` by LAPACK, ascending."""
    return np.asarray(np.linalg.eigvalsh(matrix.T @ matrix), dtype=np.float64)


def gaussian(rows: int, cols: int, seed: int = 0) -> Array:
    """Independent standard normal elements."""
    return np.random.default_rng(seed).standard_normal((rows, cols))


def marchenko_pastur_cdf(x: Array, N: int, M: int) -> Array:
    """The law of eigenvalues of ``WᵀW`` with unit elements, by numerical integration of its density."""
    from scipy.integrate import quad

    low, high = (N**0.5 - M**0.5) ** 2, (N**0.5 + M**0.5) ** 2

    def density(t: float) -> float:
        return float(np.sqrt(max(0.0, (high - t) * (t - low))) / (2 * np.pi * M * t))

    return np.array([quad(density, low, min(max(t, low), high), limit=200)[0] for t in x])


def counted_decompositions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A list that gets the shape of each matrix that is decomposed from now on."""
    calls: list[tuple[int, ...]] = []
    for module, name in ((np.linalg, "eigvalsh"), (_blas, "eigenvalues")):
        original = getattr(module, name)

        def counting(matrix: Any, original: Any = original) -> Any:
            calls.append(matrix.shape)
            return original(matrix)

        monkeypatch.setattr(module, name, counting)
    return calls
