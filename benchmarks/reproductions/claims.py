"""A claim of the documents that this package goes back to, and what was found of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plot

__all__ = ["SEEDS", "Claim", "plot", "save", "spread"]

IMAGES = Path(__file__).parents[2] / "docs" / "images" / "reproductions"

SEEDS = 3
"""The runs of each setting."""


@dataclass(frozen=True)
class Claim:
    """A claim, the number that it gives or implies, the number found, and whether it holds."""

    claim: str
    expected: str
    found: str
    verdict: Literal["holds", "holds in part", "does not hold"]


def save(figure: Any, name: str) -> None:
    """Save a picture for the page."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(IMAGES / f"{name}.png", dpi=90)
    plot.close(figure)


def spread(values: Any, digits: int = 2) -> str:
    """Mean and standard deviation of numbers over seeds, in words."""
    return (
        f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"
        if len(values) > 1
        else f"{values[0]:.{digits}f}"
    )
