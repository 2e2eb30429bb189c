"""The pictures of the curvature: its spectrum at each measurement, and the whole history at some."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from lightning_ww.callbacks._monitor.pictures import is_redrawn
from lightning_ww.callbacks._monitor.view import Picture
from lightning_ww.curvature.plots.evolution import evolution
from lightning_ww.curvature.plots.stems import spectrum_figure
from lightning_ww.drawing.canvas import picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lightning_ww.curvature.landscape import Landscape
    from lightning_ww.history import History
    from lightning_ww.measurements import CurvatureMeasurement

NAMES = {"hessian": "Hessian", "ggn": "Gauss–Newton"}
"""The matrices' names in titles."""


def curvature_pictures(
    matrix: str,
    latest: CurvatureMeasurement,
    history: History[CurvatureMeasurement],
    redraws: Callable[[int, int], bool] = is_redrawn,
) -> list[Picture]:
    """The pictures after a measurement: ``spectrum``, and ``maps/spectrum``, the spectra of the run.

    Args:
        matrix: The monitor's argument ``matrix``.
        latest: The latest measurement.
        history: The measurements so far.
        redraws: A function that says whether ``maps/spectrum`` is drawn again, from a measurement's number and the number
            of measurements kept. Default: `is_redrawn`.
    """
    density, name = latest.density, NAMES[matrix]
    title = f"{name} spectrum after {latest.step} steps: from {density.lambda_min:.3g} to {density.sharpness:.3g}"
    past = tuple(history)
    is_due = latest.is_baseline or redraws(latest.number, len(past))
    return [
        Picture("spectrum", partial(_stems, latest, title)),
        Picture("maps/spectrum", partial(_evolution, name, past), "now" if is_due else "end"),
    ]


def landscape_picture(landscape: Landscape) -> Picture:
    """The picture ``landscape``."""
    return Picture("landscape", partial(_landscape, landscape))


def _landscape(landscape: Landscape) -> NDArray[np.uint8]:
    return picture(landscape.plot)


def _stems(measurement: CurvatureMeasurement, title: str) -> NDArray[np.uint8]:
    return picture(lambda: spectrum_figure(measurement.density, title, measurement.summary.get("stability_edge")))


def _evolution(name: str, past: tuple[CurvatureMeasurement, ...]) -> NDArray[np.uint8]:
    title = f"{name} spectrum over training: share of eigenvalues"
    densities, edges = (
        [measurement.density for measurement in past],
        [measurement.summary.get("stability_edge") for measurement in past],
    )
    return evolution(title, densities, [measurement.step for measurement in past], edges)
