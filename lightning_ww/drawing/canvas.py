"""Matplotlib figures that pyplot does not manage, their pixels, and text that is broken into lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from lightning_ww._threads import others_run
from lightning_ww._torch import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from PIL import ImageFont

BLUE, ORANGE, GRAY = "#0072B2", "#D55E00", "#555555"
"""Colors that color-blind readers can tell apart (Okabe and Ito, 2008)."""

X_LARGE, LARGE = 20.0, 16.7
"""Heights in pixels of matplotlib's font sizes, at a hundred pixels per inch."""

BOX = "□"
"""The letter that stands for those that the font does not have."""

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

LOOKS = (
    *("axes", "figure", "font", "grid", "legend", "lines", "markers", "mathtext", "patch", "path", "text"),
    *("xtick", "ytick"),
)
"""Groups of matplotlib's settings that determine the look of a figure."""


def new_figure(width: float, height: float, layout: Literal["constrained", "none"] = "none") -> Figure:
    """Make an empty figure, in inches of a hundred pixels; a constrained layout takes most of the drawing time.

    The figure's size grows with the current font size.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(magnified(width), magnified(height)), dpi=100)
    figure.set_layout_engine(layout)
    FigureCanvasAgg(figure)
    return figure


def number_label(value: float, _: object = None) -> str:
    """A tick's label: powers of ten as ``10⁻³``, other numbers as they are, in plain letters, which are drawn quickly."""
    exponent = round(np.log10(abs(value))) if value else 0
    if not value or not np.isclose(abs(value), 10.0**exponent, rtol=1e-9) or -1 <= exponent <= 2:
        return f"{value:g}".replace("-", "−")
    return f"{'−' if value < 0 else ''}10{str(exponent).translate(SUPERSCRIPTS)}"


def magnified(inches: float) -> float:
    """Scale a length that suits a font size of ten points to the current font size."""
    import matplotlib

    return inches * float(matplotlib.rcParams["font.size"]) / 10


@contextmanager
def default_style() -> Iterator[None]:
    """Use matplotlib's default style, unless the user's own threads run: settings belong to the process, and they may draw."""
    import matplotlib

    # as plain dicts: `RcParams` changes the filters of warnings when it is read, so that others' warnings are repeated
    settings = matplotlib.rcParams
    own = {key: value for key, value in dict.items(matplotlib.rcParamsDefault) if key.partition(".")[0] in LOOKS}
    own = {} if others_run() else own
    before = {key: dict.__getitem__(settings, key) for key in own}
    dict.update(settings, own)
    try:
        yield
    finally:
        dict.update(settings, before)


def picture(draw: Callable[[], Figure]) -> NDArray[np.uint8]:
    """Draw a figure in matplotlib's default style, whatever the process has set; return pixels, ``(height, width, 3)``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with default_style():
        canvas = FigureCanvasAgg(draw())
        canvas.draw()  # type: ignore[no-untyped-call]
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def ink() -> str:
    """The color of text in the current style."""
    import matplotlib

    return str(matplotlib.rcParams["text.color"])


@lru_cache(maxsize=16)
def font(size: float) -> ImageFont.FreeTypeFont:
    """Matplotlib's default font for Pillow; ``size`` is in pixels."""
    from PIL import ImageFont

    # the basic layout takes any text; the other one fails on some
    return ImageFont.truetype(_font_file(), size, layout_engine=ImageFont.Layout.BASIC)


def drawable(text: str) -> str:
    """The text with a box for each letter that the font does not have."""
    known = _letters()
    return "".join(letter if ord(letter) in known else BOX for letter in printable(text))


@lru_cache(maxsize=1)
def _letters() -> frozenset[int]:
    """The letters of the font, as numbers."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_font_file()).get_charmap())


def _font_file() -> str:
    """Matplotlib's default font."""
    import matplotlib

    return f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"


def wrapped(text: str, width: float, size: float, *, after: str = " ") -> list[str]:
    """Break a text into lines of at most ``width`` pixels, after the letters ``after``, elsewhere only if necessary."""

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
