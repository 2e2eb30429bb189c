"""The figure of a loss landscape: curves along directions, or lines of equal value on a plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightning_ww.drawing.canvas import BLUE, GRAY, ORANGE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_ww.curvature.landscape import Landscape

COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7")
"""Of the functions, in their order."""

COLUMNS = 2
"""The most panels side by side: TensorBoard's thumbnails are narrow."""


def landscape_figure(landscape: Landscape) -> Figure:
    """Draw the functions, losses on the left axis and accuracies on the right one; dashed, the parabola of the curvature."""
    return _plane(landscape) if landscape.is_plane else _curves(landscape)


def _curves(landscape: Landscape) -> Figure:
    count = len(landscape.directions)
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    figure = new_figure(3.3 * columns, 2.5 * rows + 0.5, layout="constrained")
    t = landscape.distances.numpy()
    for i, direction in enumerate(landscape.directions):
        axes = figure.add_subplot(rows, columns, i + 1)
        is_right, is_low = (i + 1) % columns == 0 or i == count - 1, i >= count - columns
        right = axes.twinx() if any(_is_share(name) for name in landscape.names) else None
        for k, name in enumerate(landscape.names):
            values, color = landscape.values[k, i].numpy(), COLORS[k % len(COLORS)]
            on = right if right is not None and _is_share(name) else axes
            on.plot(t, values, color=color, label=name, linestyle=":" if _is_share(name) else "-")
        losses = landscape.values[0, i].numpy()
        middle = losses[len(t) // 2]
        # the slope is that of the values next to the middle, since the weights need not be at a minimum
        slope = (losses[len(t) // 2 + 1] - losses[len(t) // 2 - 1]) / (t[len(t) // 2 + 1] - t[len(t) // 2 - 1])
        axes.plot(t, middle + slope * t + direction.eigenvalue / 2 * t**2, "--", color=GRAY, label="parabola of λ")
        finite = losses[np.isfinite(losses)]
        if finite.size:
            room = 0.1 * (finite.max() - finite.min()) or 0.1
            axes.set_ylim(finite.min() - room, finite.max() + room)
        if right is not None:
            right.set_ylim(-0.02, 1.02)
            right.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if is_right else ["", "", ""])
            if is_right:
                right.set_ylabel("accuracy")
        axes.set_title(f"{direction.name}: λ = {direction.eigenvalue:.3g} ± {direction.residual:.1g}", fontsize=10)
        if is_low:
            axes.set_xlabel("distance from the weights")
        axes.grid(alpha=0.3)
        if i % columns == 0:
            axes.set_ylabel("loss")
        if not i:
            lines = [*axes.get_lines(), *(right.get_lines() if right is not None else [])]
            labels = [str(line.get_label()) for line in lines]
            figure.legend(lines, labels, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _plane(landscape: Landscape) -> Figure:
    count = len(landscape.names)
    figure = new_figure(4.2 * count, 3.8, layout="constrained")
    t = landscape.distances.numpy()
    first, second = landscape.directions
    for k, name in enumerate(landscape.names):
        axes = figure.add_subplot(1, count, k + 1)
        values = landscape.values[k].numpy()
        filled = axes.contourf(t, t, np.ma.masked_invalid(values), levels=20)
        figure.colorbar(filled, ax=axes)
        axes.plot(0, 0, "+", color="white", markersize=10)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(f"{second.name}, λ = {second.eigenvalue:.3g}")
        axes.set_ylabel(f"{first.name}, λ = {first.eigenvalue:.3g}")
    return figure


def _is_share(name: str) -> bool:
    """Tell whether a function is between 0 and 1."""
    return "accuracy" in name
