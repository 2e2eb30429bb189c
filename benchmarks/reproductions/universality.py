"""The exponent of matrices with heavy-tailed elements, and how it depends on their size."""

from __future__ import annotations

import numpy as np
from claims import SEEDS, Claim, plot, save

from lightning_ww.weights import fit_power_law

TAILS = (1.0, 1.5, 2.0, 3.0, 5.0)
SIZES = (100, 200, 400)


def fitted(size: int, tail: float, seed: int) -> float:
    """The exponent of a square matrix of signed Pareto elements."""
    random = np.random.default_rng([seed, size])
    elements = random.choice([-1.0, 1.0], (size, size)) * (random.pareto(tail, (size, size)) + 1)
    return fit_power_law(np.linalg.eigvalsh(elements @ elements.T).clip(0)).alpha


def reproduce() -> list[Claim]:
    """Fit matrices of several tails and sizes."""
    found = {size: [[fitted(size, tail, seed) for seed in range(SEEDS)] for tail in TAILS] for size in SIZES}
    figure, axes = plot.subplots(figsize=(5, 4))
    axes.plot(TAILS, [tail / 2 + 1 for tail in TAILS], "k--", label="µ/2 + 1")
    for size, rows in found.items():
        axes.plot(TAILS, np.mean(rows, axis=1), "o-", label=f"{size} × {size}")
    axes.set_xlabel("tail µ of the elements")
    axes.set_ylabel("fitted exponent")
    axes.legend()
    save(figure, "universality")
    means = np.mean(found[SIZES[-1]], axis=1)
    heavy = all(
        abs(mean - (tail / 2 + 1)) < 0.15 * (tail / 2 + 1) for tail, mean in zip(TAILS[:3], means, strict=False)
    )
    return [
        Claim(
            "Matrices whose elements have a tail of µ ≤ 2 have eigenvalues with the exponent µ/2 + 1, whatever else.",
            "1.50, 1.75, 2.00 for µ of 1, 1.5, 2",
            f"{', '.join(f'{mean:.2f}' for mean in means[:3])} at 400 × 400",
            "holds" if heavy else "holds in part",
        ),
        Claim(
            "For larger µ the exponent of finite matrices goes on rising with µ, and with the size.",
            "above µ/2 + 1 for µ of 3 and 5",
            f"{means[3]:.1f} and {means[4]:.1f} at 400 × 400, {np.mean(found[100][3]):.1f} and {np.mean(found[100][4]):.1f} at 100 × 100",
            "holds" if means[3] > 2.5 and means[4] > 3.5 else "does not hold",
        ),
    ]
