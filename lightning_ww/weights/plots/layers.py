"""The figure of all layers of a report: a column of dots for each metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError
from lightning_ww.drawing.canvas import BLUE, GRAY, new_figure
from lightning_ww.drawing.labels import labels
from lightning_ww.weights.metrics import KEY_METRICS, METRICS, TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from lightning_ww.weights.report import WeightReport


def report_figure(report: WeightReport, metrics: str | Sequence[str] = KEY_METRICS) -> Figure:
    """Draw each metric of each layer, layers from the top in model order.

    Args:
        report: A report with at least one layer.
        metrics: Names in `lightning_ww.METRICS`, or ``"all"``. Default: `lightning_ww.KEY_METRICS`.

    Returns:
        A matplotlib figure that pyplot does not manage.

    Raises:
        ValueError: If a metric is unknown, or there is no layer.
    """
    metrics = _checks.names("plot", "metrics", metrics, METRICS)
    if not report.layers:
        raise ArgumentError("`plot()`: this report has no layer.")
    drawn = [name for name in metrics if any(layer.metric(name) is not None for layer in report.layers)]
    count = len(report.layers)
    figure = new_figure(2.2 + 2.2 * max(1, len(drawn)), 1.2 + 0.24 * count, layout="constrained")
    rows = np.arange(count)
    for i, name in enumerate(drawn):
        axes = figure.add_subplot(1, len(drawn), i + 1)
        values = [layer.metric(name) for layer in report.layers]
        x = np.array([np.nan if value is None else value for value in values])
        positive = x[np.isfinite(x) & (x > 0)]
        if TABLE[name].scale.is_log and positive.size:
            axes.set_xscale("log")
            least = positive.min() / 10
            zero = x <= 0
            axes.plot(np.full(int(zero.sum()), least), rows[zero], "<", color=GRAY)  # zero is not on a logarithmic axis
            x = np.where(zero, np.nan, x)
        axes.plot(x, rows, "o", color=BLUE)
        axes.set_title(name)
        axes.set_ylim(count - 0.5, -0.5)
        names = labels([layer.name for layer in report.layers]) if i == 0 else [""] * count
        axes.set_yticks(rows, names, parse_math=False)
        axes.grid(alpha=0.3)
    if not drawn:
        figure.text(0.1, 0.5, "none of these metrics has a value")
    return figure
