"""Matplotlib without pyplot: figures that no global state knows of, as pixels; text that fits."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from PIL import ImageFont

BLUE, ORANGE, GRAY = "#0072B2", "#D55E00", "#555555"
"""Colors that color-blind readers tell apart (Okabe and Ito, 2008)."""

X_LARGE, LARGE = 20.0, 16.7
"""Heights in pixels of matplotlib's sizes of letters, at a hundred pixels an inch."""

LOOKS = (
    *("axes", "figure", "font", "grid", "legend", "lines", "markers", "mathtext", "patch", "path", "text"),
    *("xtick", "ytick"),
)
"""Groups of matplotlib's settings that say how a figure looks."""


def new_figure(width: float, height: float, layout: Literal["constrained", "none"] = "constrained") -> Figure:
    """An empty one, in inches of a hundred pixels; a layout that finds room for everything takes most of the time.

    It grows with the size of letters that is set.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(magnified(width), magnified(height)), dpi=100)
    figure.set_layout_engine(layout)
    FigureCanvasAgg(figure)
    return figure


def magnified(inches: float) -> float:
    """A length that is right for letters of ten points, for those that are set."""
    import matplotlib

    return inches * float(matplotlib.rcParams["font.size"]) / 10


def picture(draw: Callable[[], Figure]) -> NDArray[np.uint8]:
    """A figure's pixels, ``(height, width, 3)``, in matplotlib's own style, whatever the process has set."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    own = {key: value for key, value in matplotlib.rcParamsDefault.items() if key.partition(".")[0] in LOOKS}
    with matplotlib.rc_context(own):
        canvas = FigureCanvasAgg(draw())
        canvas.draw()  # type: ignore[no-untyped-call]
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def ink() -> str:
    """The color of text in the style that is set."""
    import matplotlib

    return str(matplotlib.rcParams["text.color"])


@lru_cache(maxsize=16)
def font(size: float) -> ImageFont.FreeTypeFont:
    """Matplotlib's own, for Pillow; ``size`` in pixels."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def wrapped(text: str, width: float, size: float, *, after: str = " ") -> list[str]:
    """The text in lines of at most so many pixels, broken after these letters, and elsewhere only if it must be."""

    def fits(line: str) -> bool:
        return font(size).getlength(line.rstrip()) <= width

    lines = [""]
    for word in re.findall(rf"[^{re.escape(after)}]*[{re.escape(after)}]*", text):
        if lines[-1] and not fits(lines[-1] + word):
            lines.append("")
        for piece in [word] if fits(word) else word:
            if lines[-1] and not fits(lines[-1] + piece):
                lines.append("")
            lines[-1] += piece
    return [line.strip() for line in lines]
