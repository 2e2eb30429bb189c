"""Which pictures of the curvature are due, and what is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.drawn import fit, images
from helpers.networks import Classifier
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_ww.callbacks import CurvatureMonitor
from lightning_ww.callbacks._curvature.pictures import curvature_pictures
from lightning_ww.curvature.plots.evolution import evolution
from lightning_ww.curvature.plots.stems import spectrum_figure
from lightning_ww.drawing.canvas import picture

pytestmark = pytest.mark.usefixtures("no_bound_on_pictures")


def test_curvature_is_drawn_at_each_measurement(tmp_path: Path) -> None:
    monitor = CurvatureMonitor(every_n_epochs=1, num_steps=3, log_key_prefix="b/")
    drawn = images(fit(monitor, logger=TensorBoardLogger(str(tmp_path)), epochs=2).log_dir)
    assert drawn == {"b/curvature/spectrum": [0, 5, 11], "b/curvature.maps/spectrum": [0, 5, 11]}


def test_the_curvatures_pictures_hold_every_spectrum_and_the_edge() -> None:
    monitor = CurvatureMonitor(every_n_epochs=1, num_steps=3)
    fit(monitor, logger=False, epochs=2, model=Classifier(lr=0.05))
    past = list(monitor.history)
    assert [one.summary["stability_edge"] for one in past] == [2 / 0.05] * 3
    stems, so_far = curvature_pictures("hessian", past[-1], monitor.history)
    title = (
        f"Hessian spectrum after 12 steps: from {past[-1].density.lambda_min:.3g} to {past[-1].density.sharpness:.3g}"
    )
    expected = picture(lambda: spectrum_figure(past[-1].density, title, 2 / 0.05))
    np.testing.assert_array_equal(stems.draw(), expected)
    title = "Hessian spectrum over training: share of eigenvalues"
    expected = evolution(title, [one.density for one in past], [0, 6, 12], [2 / 0.05] * 3)
    np.testing.assert_array_equal(so_far.draw(), expected)


def test_the_history_is_drawn_when_its_turn_comes_or_at_the_end() -> None:
    monitor = CurvatureMonitor(every_n_epochs=1, num_steps=3)
    fit(monitor, logger=False, epochs=2, model=Classifier())
    first, *_, last = monitor.history
    when = [
        [one.when for one in curvature_pictures("ggn", latest, monitor.history, lambda number, kept: False)]
        for latest in (first, last)
    ]
    assert when == [["now", "now"], ["now", "end"]]
