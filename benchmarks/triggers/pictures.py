"""Pictures of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plot

__all__ = ["plot", "save"]

IMAGES = Path(__file__).parents[2] / "docs" / "images"


def save(figure: Any, name: str) -> None:
    """Save a picture beside the page."""
    figure.tight_layout()
    figure.savefig(IMAGES / name, dpi=110)
    plot.close(figure)
