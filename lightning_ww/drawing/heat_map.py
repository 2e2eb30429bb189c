"""Heat maps: rows over time as an image with a cell for each measurement, in the colors of a fixed scale.

They are drawn by Pillow, since matplotlib spends most of its time on the labels of many rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lightning_ww.drawing.canvas import font

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import ImageFont
    from PIL.ImageDraw import ImageDraw

    from lightning_ww.drawing.scale import Scale

    Array = NDArray[np.float64]
    Pixels = NDArray[np.uint8]

WIDTH = 540
"""The width in pixels. TensorBoard's thumbnails are 350 pixels wide, and letters must be readable there, too."""

LETTERS = 14
"""The height of the letters in pixels."""

ROW_HEIGHTS = ((12, 30), (40, 20), (10_000, 15))
"""Pairs of a number of rows, and the height in pixels of each row up to that number; below 15, letters overlap."""

MAX_ROWS = 150
"""The most rows of a picture; the caller chooses which rows to leave out."""

MISSING, INK, FRAME = (208, 208, 208), (30, 30, 30), (214, 39, 40)


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Array,
    scale: Scale,
    *,
    framed: NDArray[np.bool_] | None = None,
    unit: str = "steps",
    note: str = "",
    latest: bool = True,
    nothing: str = "no value",
) -> Pixels:
    """Draw values by row and column.

    Args:
        title: The title above the map.
        rows: The names of the rows, from the top, of a few letters each.
        columns: The names of the columns, from the left; a few of them are shown.
        values: The values of the cells, shape ``(rows, columns)``; NaN is gray.
        scale: The colors of the values.
        framed: Whether a cell has a frame around it, same shape. Default: no frames.
        unit: The unit of the columns' names. Default: ``"steps"``.
        note: A line below the map, such as the meaning of a frame. Default: none.
        latest: Whether the numbers of the last column are written at the right. Default: ``True``.
        nothing: The meaning of NaN, for the legend. Default: ``"no value"``.

    Returns:
        Pixels, ``(height, WIDTH, 3)``.
    """
    from PIL import Image, ImageDraw

    normal, small = font(LETTERS), font(LETTERS - 1)
    height = next(height for most, height in ROW_HEIGHTS if len(rows) <= most)
    left = 12 + int(max(small.getlength(unit), *(normal.getlength(name) for name in rows)))
    numbers = [("–" if np.isnan(value) else f"{value:.3g}") for value in values[:, -1]] if latest else []
    right = WIDTH - (16 + max([int(normal.getlength(text)) for text in numbers], default=0))
    top, bottom = 84, 58 if note else 40
    image = Image.new("RGB", (WIDTH, top + height * len(rows) + bottom), "white")
    draw = ImageDraw.Draw(image)
    draw.text((12, 8), title, fill=INK, font=_fitting(title, LETTERS + 3))
    _color_bar(draw, scale, (12, 38, 372, 50), small)
    beside = WIDTH - 8 - int(small.getlength(nothing))
    draw.rectangle((beside - 18, 38, beside - 6, 50), fill=MISSING)
    draw.text((beside, 44), nothing, fill=INK, font=small, anchor="lm")

    edges = np.linspace(left, right, len(columns) + 1).round().astype(int)
    cells = np.repeat(_colors(scale.place(values)), np.diff(edges), axis=1)
    image.paste(Image.fromarray(np.repeat(cells, height, axis=0)), (left, top))
    for i, name in enumerate(rows):
        middle = top + i * height + height / 2
        draw.text((left - 6, middle), name, fill=INK, font=normal, anchor="rm")
        if latest:
            draw.text((WIDTH - 8, middle), numbers[i], fill=INK, font=normal, anchor="rm")
        if height > 18:
            draw.line((left, top + i * height, right, top + i * height), fill="white")
    if framed is not None:
        for i, start, stop in _runs(framed):
            box = (edges[start], top + i * height, edges[stop] - 1, top + (i + 1) * height - 1)
            draw.rectangle((box[0], box[1], max(box[0], box[2]), box[3]), outline=FRAME, width=2)
    if latest:
        draw.text((WIDTH - 8, top - 10), "latest", fill=INK, font=small, anchor="rm")
    draw.text((left - 6, top + height * len(rows) + 6), unit, fill=INK, font=small, anchor="ra")
    _column_names(draw, columns, edges, top + height * len(rows) + 4, small)
    if note:
        draw.text((12, image.height - 22), note, fill=INK, font=_fitting(note, LETTERS - 1))
    return np.asarray(image)


def chosen(count: int, most: int) -> list[int]:
    """Choose at most ``most`` of ``count`` indices, evenly spread, with the first and the last among them."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(count, most)).round())]


def most_columns() -> int:
    """The most columns that can be told apart."""
    return WIDTH // 3


def _fitting(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The font of that size, or of the smaller size at which the text fits."""
    fitting = float(size)
    while fitting > 1 and font(fitting).getlength(text) > WIDTH - 24:  # letters have whole widths: not proportional
        fitting -= 0.25
    return font(fitting)


@lru_cache(maxsize=1)
def _palette() -> Pixels:
    """Viridis, which people who do not see red or green can read; it has no gray (Smith, van der Walt 2015)."""
    import matplotlib

    colors: Pixels = matplotlib.colormaps["viridis"](np.linspace(0, 1, 256), bytes=True)
    return colors[:, :3]


def _colors(places: Array) -> Pixels:
    missing = np.isnan(places)
    colors = _palette()[(np.where(missing, 0, places) * 255).round().astype(int)]
    return np.where(missing[..., None], np.array(MISSING, dtype=np.uint8), colors)


def _color_bar(draw: ImageDraw, scale: Scale, box: tuple[int, int, int, int], letters: ImageFont.FreeTypeFont) -> None:
    low, above, high, below = box
    for x in range(low, high):
        draw.line((x, above, x, below), fill=tuple(_palette()[round(255 * (x - low) / (high - low - 1))].tolist()))
    for place, label in scale.ticks():
        at = low + place * (high - low - 1)
        draw.line((at, below, at, below + 3), fill=INK)
        anchor = "la" if place == 0 else "ra" if place == 1 else "ma"
        draw.text((at, below + 5), label, fill=INK, font=letters, anchor=anchor)


def _column_names(
    draw: ImageDraw, columns: Sequence[str], edges: NDArray[np.int_], y: float, letters: ImageFont.FreeTypeFont
) -> None:
    """Write the names of the first and the last column, and of other columns where there is room."""
    centers = (edges[:-1] + edges[1:]) / 2
    taken: list[tuple[float, float]] = []
    for i in [0, len(columns) - 1, *chosen(len(columns), 9)]:
        half = letters.getlength(columns[i]) / 2
        x = min(max(centers[i], edges[0] + half), WIDTH - half - 2)  # the unit is left of the cells
        if all(x + half + 12 < low or high + 12 < x - half for low, high in taken):
            taken.append((x - half, x + half))
            draw.line((centers[i], y - 4, centers[i], y), fill=INK)
            draw.text((x, y + 2), columns[i], fill=INK, font=letters, anchor="ma")


def _runs(framed: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Each stretch of framed cells in a row: the row, the first column, and the column after the last."""
    runs = []
    for i, row in enumerate(framed):
        steps = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        runs += [(i, int(a), int(b)) for a, b in zip(steps[::2], steps[1::2], strict=True)]
    return runs
