"""The figure of one layer's spectrum: its density, the power law of its tail, and the density of its shuffle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightning_ww._errors import NoValueError
from lightning_ww.drawing.canvas import (
    BLUE,
    GRAY,
    LARGE,
    ORANGE,
    X_LARGE,
    drawable,
    ink,
    magnified,
    new_figure,
    number_label,
    wrapped,
)
from lightning_ww.weights.marchenko_pastur import bulk_density, bulk_edges
from lightning_ww.weights.plots.null_band import HEIGHT, draw_null_band, null_rows
from lightning_ww.weights.power_law import PowerLawFit, compare_tails, positive_part

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from lightning_ww.weights.report import LayerReport

    Array = NDArray[np.float64]

BINS_PER_DECADE = 10

DECADES = 5
"""The decades that are shown below the largest eigenvalue; up to twelve where the power law begins lower."""

LINE, ABOVE, PLOT, BELOW, ENTRY = 0.225, 0.12, 2.3, 0.75, 0.265
"""Heights in inches: a line of the title, the margin, the axes, their labels, and a row of the legend."""

TITLE = 550
"""The largest width of a line of the title, in pixels."""

MAX_NAME = 110
"""The most letters of a name in the title."""


def layer_figure(layer: LayerReport, *, compare: bool = False) -> Figure:
    """Draw the densities of a layer's eigenvalues and of its shuffle's, on two logarithmic axes.

    Below are its `alpha_hill` and `rand_distance`, with the bands of noise, if those were measured.

    Args:
        layer: A report with a spectrum.
        compare: Whether the title compares the tail with other distributions; this takes several times as long. Default:
            ``False``.

    Returns:
        A matplotlib figure that pyplot does not manage.

    Raises:
        NoValueError: If the layer has no spectrum, because it is too large to be decomposed, or if it is zero. It is a
            `ValueError`.
    """
    if layer.spectrum is None:
        raise NoValueError(
            f"layer {layer.name!r} has no spectrum to draw: {layer.reasons.get('alpha', 'it was not kept')}."
        )
    values = positive_part(layer.spectrum.eigenvalues)
    if not values.size:
        raise NoValueError(f"layer {layer.name!r} has no spectrum to draw: the weight is zero.")
    size = LARGE if compare else X_LARGE
    lines = _headings(layer, size) + (wrapped(tail_caption(layer), TITLE, size) if compare else [])
    figure = new_figure(6.4, 4.8)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    shuffled = np.square(layer.shuffled).ravel() if layer.shuffled is not None else values[:0]
    variances, bulk_label = _bulk_variances(layer)
    bulk_max = bulk_edges(layer.N, layer.M, float(variances.max()))[1]
    traps = np.empty(0) if layer.trap_eigenvalues is None else layer.trap_eigenvalues
    high = np.log10(max(values[-1], shuffled.max(initial=0), bulk_max)) + 0.15
    lowest = min(traps.min(initial=np.inf), np.inf if layer.xmin is None else layer.xmin)
    decades = max(DECADES, high - np.log10(lowest) + 0.3)
    edges = 10.0 ** np.arange(
        high - np.ceil(decades * BINS_PER_DECADE) / BINS_PER_DECADE, high + 1e-9, 1 / BINS_PER_DECADE
    )
    n = layer.num_eigenvalues
    if shuffled.size:
        label = "shuffled, as predicted" if layer.shuffle == "analytic" else "shuffled"
        _density(axes, shuffled, n, edges, GRAY, label, filled=True)
    _bulk(axes, layer, variances, bulk_max, bulk_label)
    _traps(axes, traps)
    smaller = int((values < edges[0]).sum()) + n - values.size
    label = f"this layer ({smaller} are smaller)" if smaller else "this layer"
    _density(axes, values, n, edges, BLUE, label, filled=False)
    least = 0.3 / (n * (edges[-1] - edges[-2]))  # below one eigenvalue in the widest bin
    _tail(axes, layer, values[-1], least)
    axes.set_ylim(bottom=least)
    axes.set_xlim(max(edges[0], 0.5 * min(values[0], shuffled.min(initial=np.inf), lowest)), edges[-1])
    axes.set_xlabel("eigenvalue of WᵀW", fontsize="x-large")
    axes.set_ylabel("density", fontsize="x-large")
    text, letters = "\n".join(lines), "large" if compare else "x-large"
    axes.set_title(text, loc="left", y=1.0, fontsize=letters, parse_math=False)  # saves the search for a free place
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(number_label)
    axes.minorticks_off()  # many ticks take long to draw
    axes.tick_params(labelsize="large")
    axes.grid(alpha=0.2)
    rows = null_rows(layer)
    legend = figure.legend(loc="lower center", ncols=2, fontsize="large", frameon=False)
    bottom = HEIGHT * len(rows)
    below = BELOW + ENTRY * np.ceil(len(legend.get_texts()) / 2) + bottom
    height = ABOVE + LINE * len(lines) + PLOT + below
    legend.set_bbox_to_anchor((0.0, bottom / height, 1.0, 1.0))
    draw_null_band(figure, rows, height)
    figure.set_size_inches(magnified(6.4), magnified(height))
    axes.set_position((0.13, below / height, 0.85, PLOT / height))
    return figure


def tail_caption(layer: LayerReport) -> str:
    """The comparison of the power law with other distributions of the tail, in words."""
    fit = _fit(layer)
    if fit is None or layer.spectrum is None:
        return f"No power law to compare: {layer.reasons.get('alpha', 'there is no spectrum')}."
    sentences = []
    for other, comparison in compare_tails(layer.spectrum.eigenvalues, fit).items():
        name = other.replace("_", " ")
        if comparison is None:
            sentences.append(f"{name}: cannot be fitted")
        else:
            sentences.append(f"{name}: R = {comparison.log_likelihood_ratio:+.2f}, p = {comparison.p_value:.2g}")
    return "Power law against " + "; ".join(sentences) + ". R > 0 favors the power law."


def _headings(layer: LayerReport, size: float) -> list[str]:
    """The lines of the title: the layer's name, broken at dots and shortened in the middle, and its numbers."""
    name = drawable(layer.name)
    name = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME // 2]}…{name[-MAX_NAME // 2 :]}"
    first = wrapped(f"{name} ({layer.shape})", TITLE, size, after=". ")
    if layer.alpha is None:
        return first + wrapped(f"no alpha: {layer.reasons.get('alpha', '')}", TITLE, size)
    numbers = [f"alpha {layer.alpha:.2f} ± {layer.alpha_stderr:.2f}", f"D {layer.ks_distance:.3f}"]
    if layer.rand_distance is not None:
        numbers.append(f"rand_distance {layer.rand_distance:.2f}")
    return first + wrapped(", ".join(numbers), TITLE, size)


def _density(axes: Axes, values: Array, n: int, edges: Array, color: str, label: str, *, filled: bool) -> None:
    """Draw eigenvalues as a density of all n, zeros included, so that layer and shuffle are comparable."""
    counts = np.histogram(values, bins=edges)[0]
    heights = counts / (n * np.diff(edges))
    if filled:
        axes.stairs(heights, edges, color=color, alpha=0.3, fill=True, label=label)
    else:
        axes.stairs(np.where(counts > 0, heights, np.nan), edges, color=color, linewidth=2, label=label)


def _tail(axes: Axes, layer: LayerReport, largest: float, least: float) -> None:
    """Draw ``(m/n) (alpha - 1)/xmin · (λ/xmin)^-alpha`` from xmin upward, as far as it is above ``least``."""
    if (fit := _fit(layer)) is None:
        return
    x = np.geomspace(fit.xmin, largest, 50)
    share = fit.num_tail / layer.num_eigenvalues
    label = f"power law, tail of {fit.num_tail} of {layer.num_eigenvalues}"
    heights = share * (fit.alpha - 1) / fit.xmin * (x / fit.xmin) ** -fit.alpha
    seen = heights > 0.1 * least  # the rest of a steep line would compress the density
    axes.plot(x[seen], heights[seen], color=ORANGE, linewidth=2.5, label=label)
    axes.axvline(fit.xmin, color=ORANGE, linestyle=":", label=f"xmin = {fit.xmin:.3g}")


def _bulk_variances(layer: LayerReport) -> tuple[Array, str]:
    """The ``σ²`` of the fitted bulk, or else of each slice, ``Σλ/(N M)``; and the label of its line."""
    assert layer.spectrum is not None
    if layer.bulk_max is not None:
        return np.array([layer.bulk_max / bulk_edges(layer.N, layer.M, 1.0)[1]]), "Marchenko–Pastur, fitted"
    return np.square(layer.spectrum.singular_values).sum(axis=1) / (layer.N * layer.M), "Marchenko–Pastur"


def _bulk(axes: Axes, layer: LayerReport, variances: Array, high: float, label: str) -> None:
    """Draw the mean density over slices of noise of these variances, up to ``high``; a slice of zeros has none."""
    some = variances[variances > 0]
    low = bulk_edges(layer.N, layer.M, float(some.min()))[0]
    x = np.geomspace(max(low, 1e-6 * high), high, 400)[1:-1]
    total = np.sum([bulk_density(x, layer.N, layer.M, float(variance)) for variance in some], axis=0)
    color = ink()
    axes.plot(x, total / variances.size, color=color, linewidth=1, label=label)
    axes.axvline(high, color=color, linestyle="--", linewidth=1, label=f"its edge, {high:.3g}")


def _traps(axes: Axes, traps: Array) -> None:
    """Mark the shuffle's eigenvalues that are correlation traps."""
    if traps.size:
        heights, label = np.full(traps.size, 0.03), f"correlation traps: {traps.size}"
        axes.plot(traps, heights, "^", label=label, color=GRAY, markersize=9, transform=axes.get_xaxis_transform())


def _fit(layer: LayerReport) -> PowerLawFit | None:
    if layer.alpha is None or layer.xmin is None or layer.ks_distance is None or layer.num_tail is None:
        return None
    return PowerLawFit(layer.alpha, layer.xmin, layer.ks_distance, layer.num_tail, layer.alpha_stderr or 0.0)
