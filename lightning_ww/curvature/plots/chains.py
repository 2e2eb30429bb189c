"""The figure of the chains of a learning coefficient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightning_ww.drawing.canvas import BLUE, GRAY, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_ww.curvature.coefficient import LearningCoefficient


def chains_figure(found: LearningCoefficient) -> Figure:
    """Draw, for each chain, its draws and their running mean, with the estimate as a line."""
    figure = new_figure(6.4, 3.6, layout="constrained")
    axes = figure.add_subplot()
    draws = found.draws.numpy()
    places = np.arange(1, draws.shape[1] + 1)
    for row in draws:
        axes.plot(places, row, ",", color=GRAY, alpha=0.5)
        axes.plot(places, np.cumsum(row) / places, color=BLUE, linewidth=1)
    axes.axhline(found.value, color="black", linewidth=0.8, linestyle="--")
    finite = draws[np.isfinite(draws)]
    if finite.size:
        low, high = np.quantile(finite, [0.005, 0.995])
        room = 0.05 * (high - low) or 1.0
        axes.set_ylim(low - room, high + room)
    error = "" if found.stderr is None else f" ± {found.stderr:.2g}"
    verdict = "" if found.is_valid else f"\nnot valid: {found.reason}"
    axes.set_title(f"learning coefficient {found.value:.3g}{error}, {len(draws)} chains{verdict}", fontsize=9)
    axes.set_xlabel("draw")
    axes.set_ylabel("nβ(L(w) − L(w*))")
    axes.grid(alpha=0.3)
    return figure
