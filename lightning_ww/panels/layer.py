"""One layer's spectrum as a figure: its density, the power law of its tail, and the same elements in random order."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_ww.panels.canvas import BLUE, GREY, ORANGE, new_figure
from lightning_ww.weights.marchenko_pastur import bulk_density
from lightning_ww.weights.power_law import PowerLawFit, compare_tails, positive_part

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from lightning_ww.report import LayerReport

    Array = NDArray[np.float64]

BINS_PER_DECADE = 10
DECADES = 5
"""So many below the largest eigenvalue are shown; a tail begins within two or three."""


def layer_figure(layer: LayerReport, title: str = "", *, compare: bool = False) -> Figure:
    """The density of a layer's eigenvalues on two logarithmic axes, beside that of its shuffle.

    Args:
        layer: With its spectrum.
        title: Before the layer's name.
        compare: Whether the tail is compared with other distributions, in the title; it takes several times as long.

    Returns:
        A figure of matplotlib's that no global state knows of.

    Raises:
        ValueError: If the layer has no spectrum, as one too large to be decomposed, or is zero.
    """
    if layer.spectrum is None:
        raise ValueError(
            f"layer {layer.name!r} has no spectrum to draw: {layer.reasons.get('alpha', 'it was not kept')}."
        )
    values = positive_part(layer.spectrum.eigenvalues)
    if not values.size:
        raise ValueError(f"layer {layer.name!r} has no spectrum to draw: the weight is zero.")
    figure = new_figure(6.4, 4.8, layout=None)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    shuffled = np.sort(np.square(layer.shuffled).ravel()) if layer.shuffled is not None else None
    largest = max(values[-1], shuffled[-1]) if shuffled is not None else values[-1]
    high = np.log10(largest) + 0.15
    edges = 10.0 ** np.arange(high - DECADES, high + 1e-9, 1 / BINS_PER_DECADE)
    if shuffled is not None:
        label = "shuffled, as predicted" if layer.shuffle == "analytic" else "shuffled"
        _density(axes, shuffled, edges, GREY, label, filled=True)
        _bulk(axes, layer, float(np.square(layer.spectrum.singular_values).sum()))
        _traps(axes, layer, shuffled)
    _density(axes, values, edges, BLUE, "this layer", filled=False)
    least = 0.3 / (values.size * (edges[-1] - edges[-2]))  # below one eigenvalue in the widest bin
    _tail(axes, layer, values, least)
    axes.set_ylim(bottom=least)
    axes.set_xlim(max(edges[0], 0.5 * min(values[0], shuffled[0] if shuffled is not None else values[0])), edges[-1])
    axes.set_xlabel("eigenvalue of WᵀW", fontsize="x-large")
    axes.set_ylabel("density", fontsize="x-large")
    lines = [part for line in _headings(layer, title) for part in textwrap.wrap(line, 54)]
    lines += textwrap.wrap(tail_caption(layer), 62) if compare else []
    looks: dict[str, Any] = {"loc": "left", "y": 1.0, "parse_math": False}  # its place being given saves a quarter
    axes.set_title("\n".join(lines), fontsize="large" if compare else "x-large", **looks)
    axes.minorticks_off()  # which take a third of the time
    axes.tick_params(labelsize="large")
    axes.grid(alpha=0.2)
    figure.legend(loc="lower center", ncols=2, fontsize="large", frameon=False)
    figure.subplots_adjust(left=0.13, right=0.98, bottom=0.4, top=0.97 - 0.047 * len(lines))
    return figure


def tail_caption(layer: LayerReport) -> str:
    """How much better a power law describes the tail than other distributions do, in words."""
    fit = _fit(layer)
    if fit is None or layer.spectrum is None:
        return f"No power law to compare: {layer.reasons.get('alpha', 'there is no spectrum')}."
    said = []
    for other, found in compare_tails(layer.spectrum.eigenvalues, fit).items():
        name = other.replace("_", " ")
        if found is None:
            said.append(f"{name}: cannot be fitted")
        else:
            said.append(f"{name}: R = {found.log_likelihood_ratio:+.2f}, p = {found.p_value:.2g}")
    return "Power law against " + "; ".join(said) + ". R > 0 favours the power law."


def _headings(layer: LayerReport, title: str) -> list[str]:
    shape = f"{layer.N} × {layer.M}" + (f" × {layer.slices}" if layer.slices > 1 else "")
    first = f"{title}{layer.name} ({shape})"
    if layer.alpha is None:
        return [first, f"no alpha: {layer.reasons.get('alpha', '')}"]
    numbers = [f"alpha {layer.alpha:.2f} ± {layer.alpha_stderr:.2f}", f"D {layer.ks_distance:.3f}"]
    if layer.rand_distance is not None:
        numbers.append(f"rand_distance {layer.rand_distance:.2f}")
    return [first, ", ".join(numbers)]


def _density(axes: Axes, values: Array, edges: Array, color: str, label: str, *, filled: bool) -> None:
    counts = np.histogram(values, bins=edges)[0]
    heights = counts / (values.size * np.diff(edges))
    if filled:
        axes.stairs(heights, edges, color=color, alpha=0.3, fill=True, label=label)
    else:
        axes.stairs(np.where(counts > 0, heights, np.nan), edges, color=color, linewidth=2, label=label)


def _tail(axes: Axes, layer: LayerReport, values: Array, least: float) -> None:
    """``(m/n) (alpha - 1)/xmin · (λ/xmin)^-alpha`` from xmin upwards, as far as it is above ``least``."""
    if (fit := _fit(layer)) is None:
        return
    x = np.geomspace(fit.xmin, values[-1], 50)
    share = fit.num_tail / values.size
    label = f"power law, tail of {fit.num_tail} of {values.size}"
    heights = share * (fit.alpha - 1) / fit.xmin * (x / fit.xmin) ** -fit.alpha
    seen = heights > 0.1 * least  # of a steep line the rest would press the density together
    axes.plot(x[seen], heights[seen], color=ORANGE, linewidth=2.5, label=label)
    axes.axvline(fit.xmin, color=ORANGE, linestyle=":", label=f"xmin = {fit.xmin:.3g}")


def _bulk(axes: Axes, layer: LayerReport, total: float) -> None:
    """What noise of the same variance shows: ``σ² = Σλ/(N M)`` over all slices."""
    variance = total / (layer.N * layer.num_eigenvalues)
    edges = [variance * (layer.N**0.5 + sign * layer.M**0.5) ** 2 for sign in (-1, 1)]
    x = np.geomspace(max(edges[0], 1e-6 * edges[1]), edges[1], 400)[1:-1]
    axes.plot(x, bulk_density(x, layer.N, layer.M, variance), color="black", linewidth=1, label="Marchenko–Pastur")
    axes.axvline(edges[1], color="black", linestyle="--", linewidth=1, label=f"its edge, {edges[1]:.3g}")


def _traps(axes: Axes, layer: LayerReport, shuffled: Array) -> None:
    """The shuffle's eigenvalues that noise does not have."""
    if layer.correlation_traps:
        traps = shuffled[-layer.correlation_traps :]
        foot = np.full(traps.size, 0.03)
        label = f"correlation traps: {layer.correlation_traps}"
        axes.plot(traps, foot, "^", color=GREY, markersize=9, transform=axes.get_xaxis_transform(), label=label)


def _fit(layer: LayerReport) -> PowerLawFit | None:
    if layer.alpha is None or layer.xmin is None or layer.ks_distance is None or layer.num_tail is None:
        return None
    return PowerLawFit(layer.alpha, layer.xmin, layer.ks_distance, layer.num_tail, layer.alpha_stderr or 0.0)
