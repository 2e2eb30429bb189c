"""Which pictures of the curvature are drawn when: its spectrum each time, the whole history on occasion."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lightning_ww.callbacks._monitor.schedule import is_redrawn
from lightning_ww.curvature.plots.evolution import evolution
from lightning_ww.curvature.plots.stems import spectrum_figure
from lightning_ww.drawing.canvas import picture

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from lightning_ww.history import CurvatureMeasurement, History

    Draw = Callable[[], NDArray[np.uint8]]

NAMES = {"hessian": "Hessian", "ggn": "Gauss–Newton"}
"""Of the matrices, as in titles."""

EDGE = "curvature/stability_edge"
"""Key of 2/lr, where there is one."""


class CurvaturePanels:
    """What was drawn, and what is still to be."""

    def __init__(self, matrix: str) -> None:
        """``matrix``: the monitor's argument."""
        self._name = NAMES[matrix]
        self._drawn_at = -1  # number of the latest measurement in the picture of all

    def due(
        self, latest: CurvatureMeasurement, history: History[CurvatureMeasurement], *, is_baseline: bool
    ) -> dict[str, Draw]:
        """After a measurement: ``curvature/spectrum``, and ``curvature.maps/spectrum`` if it is its turn."""
        density = latest.density
        when = f"after {latest.step} steps"
        title = f"{self._name} spectrum {when}: from {density.lambda_min:.3g} to {density.sharpness:.3g}"
        draw = {"curvature/spectrum": partial(_stems, latest, title)}
        return draw | (self.last(history) if is_baseline or is_redrawn(latest.number, len(history)) else {})

    def last(self, history: History[CurvatureMeasurement]) -> dict[str, Draw]:
        """``curvature.maps/spectrum``, unless it holds the latest measurement."""
        if self._drawn_at == history[-1].number:
            return {}
        self._drawn_at = history[-1].number
        past = list(history)
        title = f"{self._name} spectrum over training: share of eigenvalues"
        densities, edges = [one.density for one in past], [one.summary.get(EDGE) for one in past]
        return {"curvature.maps/spectrum": partial(evolution, title, densities, [one.step for one in past], edges)}


def _stems(measurement: CurvatureMeasurement, title: str) -> NDArray[np.uint8]:
    return picture(lambda: spectrum_figure(measurement.density, title, measurement.summary.get(EDGE)))
