"""A layer's `alpha_hill` and `rand_distance` beside the band that noise of its shape has."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from lightning_ww.drawing.canvas import BLUE, GRAY, ink

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_ww.weights.report import LayerReport

HEIGHT = 0.3
"""The height of a row, in inches."""

SDS = 2
"""Half the width of the band of `alpha_hill`, in standard deviations."""

LEFT, RIGHT = 0.62, 0.98
"""The ends of the axes, as shares of the figure's width."""

LEAST = 4.0
"""The smallest width of a band or a mark, in thousandths of an axis."""


class Row(NamedTuple):
    """A number, the band of noise, and the ends of a logarithmic axis."""

    text: str
    value: float
    band: tuple[float, float]
    ends: tuple[float, float]

    def place(self, value: float) -> float:
        """The place of a value on the figure, as a share of its width; values beyond the ends are at the ends."""
        low, high = (math.log(end) for end in self.ends)
        share = (math.log(max(value, 1e-300)) - low) / (high - low)
        return LEFT + (RIGHT - LEFT) * min(1.0, max(0.0, share))


def null_rows(layer: LayerReport) -> list[Row]:
    """The numbers of a layer that have a band: a layer has none unless the value for noise was measured."""
    rows = []
    hill, mean, sd = layer.alpha_hill, layer.alpha_hill_null, layer.alpha_hill_null_sd
    if hill is not None and mean is not None and sd is not None:
        text = f"alpha_hill {hill:.2f}, noise {mean:.2f} ± {SDS * sd:.2g}"
        rows.append(Row(text, hill, (mean - SDS * sd, mean + SDS * sd), (1.1, 9.0)))
    distance, floor = layer.rand_distance, layer.rand_distance_floor
    if distance is not None and floor:
        text = f"rand_distance {distance:.2g}, noise {floor:.2g}"
        rows.append(Row(text, distance, (floor / 3, floor * 1.3), (min(floor / 3, 0.01), math.sqrt(math.log(2)))))
    return rows


def draw_null_band(figure: Figure, rows: list[Row], height: float) -> None:
    """Draw the rows at the bottom of a figure of this height: a line each, a gray band for noise, a mark for the layer."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    for i, row in enumerate(reversed(rows)):
        middle, half = (i + 0.6) * HEIGHT / height, 0.3 * HEIGHT / height
        figure.text(0.03, middle, row.text, va="center", fontsize="large", color=ink())
        low, high = (row.place(end) for end in row.band)
        figure.add_artist(Line2D([LEFT, RIGHT], [middle, middle], color=ink(), linewidth=0.8))
        width = max(high - low, LEAST / 1000)
        figure.add_artist(Rectangle((low, middle - half), width, 2 * half, color=GRAY, alpha=0.4, linewidth=0))
        at = row.place(row.value)
        figure.add_artist(Line2D([at, at], [middle - half, middle + half], color=BLUE, linewidth=3))
