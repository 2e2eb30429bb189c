"""A curvature spectrum as stems and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightning_ww.drawing.canvas import BLUE, GRAY, LARGE, ORANGE, ink, new_figure, number_label, wrapped
from lightning_ww.drawing.markdown import markdown, number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_ww.curvature.density import SpectralDensity

POSITIVE, NEGATIVE, NEAR_ZERO = BLUE, ORANGE, GRAY

LABEL_PIXELS = 18
"""The smallest distance between outliers with written values."""

TICK_PIXELS = 56
"""The smallest distance between the centers of neighboring labels of an axis."""

LINE, ABOVE, PLOT, BELOW = 0.24, 0.12, 2.9, 1.42
"""Heights in inches: a line of the title, the margin, the axes, and their labels with the legend of three rows."""

NUM_LISTED = 10
"""The number of largest eigenvalues in the table."""


def spectrum_figure(density: SpectralDensity, title: str, stability_edge: float | None = None) -> Figure:
    """Draw a stem for each node, as high as its weight: the share of eigenvalues that it stands for.

    Both axes are logarithmic, the horizontal axis on both sides of zero. Gray stems are close to zero. Filled heads are
    single eigenvalues that have converged; open heads stand for many. Smoothing would change the moments, so there is none.

    Args:
        density: The spectral density, as nodes and weights.
        title: The title above the figure.
        stability_edge: The edge 2/lr, marked by a line, or only in the legend if it is far beyond the spectrum. Default:
            ``None``, no mark.

    Returns:
        A matplotlib figure that pyplot does not manage.
    """
    lines = wrapped(title, 540, LARGE)
    figure = new_figure(6.4, height := ABOVE + LINE * len(lines) + PLOT + BELOW)
    axes = figure.add_axes((0.14, BELOW / height, 0.83, PLOT / height))
    nodes, weights = density.nodes.numpy(), density.weights.numpy()
    simple = density.is_simple.numpy()
    floor = min(0.3 / density.dim, 0.5 * float(weights[weights > 0].min(initial=1.0)))
    sides = (
        (POSITIVE, nodes > density.tol, "positive"),
        (NEGATIVE, nodes < -density.tol, "negative"),
        (NEAR_ZERO, np.abs(nodes) <= density.tol, "close to zero"),
    )
    for color, side, label in sides:
        share = float(weights[side].sum())
        axes.vlines(nodes[side], floor, np.maximum(weights[side], floor), color=color, linewidth=1.5)
        for filled in (True, False):
            chosen = side & (simple == filled)
            face = color if filled else "white"
            axes.plot(nodes[chosen], weights[chosen], "o", color=color, markerfacecolor=face, markersize=5)
        axes.plot([], [], "o-", color=color, label=f"{label}: {100 * share:.3g} %")
    axes.plot([], [], "o", color=ink(), label="filled: single, converged", linestyle="none", markersize=5)
    threshold = 10.0 ** np.floor(np.log10(density.tol if density.tol > 0 else 1.0))
    axes.set_xscale("symlog", linthresh=threshold)
    axes.set_yscale("log")
    axes.set_ylim(floor, 3)
    if stability_edge is not None:
        label = f"2/lr = {stability_edge:.4g}, edge of gradient descent"
        if stability_edge < 100 * float(np.abs(nodes).max()):
            axes.axvline(stability_edge, color=ink(), linestyle="--", label=label)
            axes.set_xlim(right=max(axes.get_xlim()[1], 1.5 * stability_edge))  # keeps the line off the frame
        else:  # a line there would compress all else
            axes.plot([], [], " ", label=f"2/lr = {stability_edge:.4g}: far to the right")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high)
    ticks = _ticks(axes, threshold)
    axes.set_xticks(ticks, labels=[number_label(tick) for tick in ticks])
    axes.yaxis.set_major_formatter(number_label)
    axes.minorticks_off()
    _label_outliers(axes, density)
    axes.set_xlabel("eigenvalue", fontsize="x-large")
    axes.set_ylabel("share of all eigenvalues", fontsize="x-large")
    axes.set_title("\n".join(lines), loc="left", fontsize="large", parse_math=False)
    axes.tick_params(labelsize="large")
    axes.grid(axis="both", alpha=0.2)
    figure.legend(loc="lower center", ncols=2, fontsize="large", frameon=False, handlelength=1.5, columnspacing=1.0)
    return figure


def _ticks(axes: Axes, threshold: float) -> list[float]:
    """Ticks at zero, and at the powers of ten whose labels have room."""
    low, high = axes.get_xlim()
    powers = threshold * 10.0 ** np.arange(1, 20)  # none at the threshold itself: too close to zero
    ticks = [0.0] if low <= 0 <= high else []
    for tick in sorted([*powers[powers <= high], *-powers[powers <= -low]], key=abs, reverse=True):
        at, others = (axes.transData.transform([(x, 1) for x in xs])[:, 0] for xs in ([tick], ticks or [np.inf]))
        if np.abs(others - at).min() > TICK_PIXELS:
            ticks.append(float(tick))
    return sorted(ticks)


def _label_outliers(axes: Axes, density: SpectralDensity) -> None:
    """Write the values of the largest eigenvalues above the bulk where there is room; the table has them, too."""
    last = np.inf
    converged = [top for top in density.top_eigenvalues if top.converged]  # only these count as outliers
    for top in converged[: density.num_outliers or 0]:
        height = float(density.weights[density.nodes == top.value].max())
        at = float(axes.transData.transform((top.value, height))[0])
        if last - at > LABEL_PIXELS:
            last = at
            axes.annotate(
                f"{top.value:.3g}",
                (top.value, height),
                (0, 8),
                textcoords="offset points",
                rotation=90,
                ha="center",
                va="bottom",
            )


def spectrum_table(density: SpectralDensity, facts: Mapping[str, str]) -> str:
    """Write the facts of a measurement, and the largest eigenvalues with their residuals, as tables in Markdown."""
    text = markdown(["", ""], [[name, value] for name, value in facts.items()])
    rows = [
        [str(i + 1), number(top.value), number(top.residual), "yes" if top.converged else "no"]
        for i, top in enumerate(density.top_eigenvalues[:NUM_LISTED])
    ]
    return f"{text}\n\n{markdown(['', 'largest eigenvalues', 'within', 'converged'], rows)}"
