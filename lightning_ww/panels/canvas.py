"""Matplotlib without pyplot: figures that no global state knows of, as pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
"""Colours that colour-blind readers tell apart (Okabe and Ito, 2008)."""

LOOKS = ("axes", "figure", "font", "grid", "legend", "lines", "mathtext", "patch", "text", "xtick", "ytick")
"""Groups of matplotlib's settings that say how a figure looks."""


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty one, in inches of a hundred pixels; a layout that finds room for everything takes most of the time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout=layout)
    FigureCanvasAgg(figure)
    return figure


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
    """The colour of text in the style that is set."""
    import matplotlib

    return str(matplotlib.rcParams["text.color"])
