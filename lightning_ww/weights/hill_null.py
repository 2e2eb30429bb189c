"""What noise reads: the mean and the spread of `alpha_hill` over noise matrices of a layer's shape."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lightning_ww.weights.marchenko_pastur import law_quantiles, noise_eigenvalues
from lightning_ww.weights.power_law import hill_alpha

DRAWS = 32
"""The number of noise matrices from which the spread is estimated, to 12 %."""

FEWEST = 8
"""The fewest eigenvalues of a draw."""

DRAWN = 128
"""The largest short side of the matrices that are drawn; to larger ones the spread is extrapolated."""


@lru_cache(maxsize=256)
def hill_null(N: int, M: int, slices: int = 1) -> tuple[float, float]:
    """The mean of `hill_alpha` over layers of noise, and its standard deviation.

    The mean is that of the Marchenko–Pastur quantiles at (k - ½)/n of all n eigenvalues. The spread comes from noise matrices
    of the same N/M with a short side of at most 128. For a larger M, the number of eigenvalues above the median varies more,
    by ``ln(M/128)/π²`` in its variance, and ``(M·sd)²`` grows by ``(α - 1)⁴/p²`` times that, where p is the density of ln λ at
    the median.

    Args:
        N: Long side of a slice.
        M: Short side.
        slices: The number of slices, whose eigenvalues are pooled. Default: ``1``.
    """
    quantiles = law_quantiles(N, M, M * slices)
    mean = hill_alpha(quantiles)
    few = min(M, DRAWN)
    pooled = -(-FEWEST // few)  # slices of so few eigenvalues that one alone has no exponent
    drawn = noise_eigenvalues(max(few, round(N * few / M)), few, DRAWS * pooled).reshape(DRAWS, -1)
    scaled = few * pooled**0.5 * np.std([hill_alpha(np.sort(values)) for values in drawn], ddof=1)
    if few < M:
        middle = quantiles.size // 2
        density = 2 / (quantiles.size * np.log(quantiles[middle + 1] / quantiles[middle - 1]))
        scaled = np.hypot(scaled, (mean - 1) ** 2 / (np.pi * density) * np.log(M / few) ** 0.5)
    return mean, float(scaled / (M * slices**0.5))
