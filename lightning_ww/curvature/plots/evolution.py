"""A curvature spectrum over time as a heat map: a column for each measurement, and shares of eigenvalues as colors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightning_ww.drawing.heat_map import chosen, heat_map, most_columns
from lightning_ww.drawing.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lightning_ww.curvature.density import SpectralDensity

    Array = NDArray[np.float64]

DECADES, MOST_DECADES = 4, 8
"""The decades below the largest eigenvalue of each measurement, on both sides of zero, and the most decades in all."""

BINS_PER_DECADE = 4

SHARES = Scale(1e-6, 1, is_log=True)


def evolution(
    title: str,
    densities: Sequence[SpectralDensity],
    steps: Sequence[int],
    stability_edges: Sequence[float | None],
) -> NDArray[np.uint8]:
    """Draw the spectra of a run as one image.

    Args:
        title: The title above the image.
        densities: The spectral density at each measurement, oldest first.
        steps: The step of each measurement.
        stability_edges: 2/lr at each measurement, whose cell is framed; ``None`` where it is unknown.

    Returns:
        Pixels, ``(height, width, 3)``.
    """
    kept = chosen(len(densities), most_columns())
    tops = [float(densities[i].nodes.abs().max()) for i in kept]
    largest, least = max(tops), min((top for top in tops if top > 0), default=1.0)
    top = int(np.ceil(np.log10(largest))) if largest > 0 else 0
    decades = min(MOST_DECADES, DECADES + max(0, top - int(np.ceil(np.log10(least)))))
    edges = 10.0 ** np.linspace(top, top - decades, decades * BINS_PER_DECADE + 1)  # from the largest down
    values = np.column_stack([_shares(densities[i], edges) for i in kept])
    framed = np.zeros(values.shape, dtype=bool)
    for column, i in enumerate(kept):
        edge = stability_edges[i]
        if edge is not None and edges[-1] <= edge <= edges[0]:
            framed[max(0, int(np.searchsorted(-edges, -edge, side="right")) - 1), column] = True
    above = [f"{edge:.3g}" if i % BINS_PER_DECADE == 0 else "" for i, edge in enumerate(edges[:-1])]
    rows = [*above, "0", *[f"−{name}" if name else "" for name in reversed(above)]]
    note = "Rows go from their numbers towards zero. "
    latest = stability_edges[-1]
    if framed.any():
        note += "Framed: 2/lr, the edge of gradient descent."
    elif latest is not None and latest > edges[0]:
        note += f"2/lr = {latest:.3g} is beyond the top."
    names = [str(steps[i]) for i in kept]
    used = np.flatnonzero((~np.isnan(values) | framed).any(axis=1))
    shown = slice(used[0] // BINS_PER_DECADE * BINS_PER_DECADE, used[-1] + 1)
    return heat_map(
        title,
        rows[shown],
        names,
        values[shown],
        SHARES,
        framed=framed[shown],
        note=note,
        latest=False,
        nothing="no eigenvalue",
    )


def _shares(density: SpectralDensity, edges: Array) -> Array:
    """The weight in each bin, from the largest to the smallest eigenvalues; NaN where there is none."""
    nodes, weights = density.nodes.numpy(), density.weights.numpy()
    small = np.abs(nodes) < edges[-1]
    parts = []
    for sign in (1, -1):
        side = (sign * nodes > 0) & ~small
        counts = np.histogram(sign * nodes[side], bins=edges[::-1], weights=weights[side])[0]
        parts.append(counts[::-1] if sign > 0 else counts)
    shares = np.concatenate([parts[0], [weights[small].sum()], parts[1]])
    return np.where(shares > 0, shares, np.nan)
