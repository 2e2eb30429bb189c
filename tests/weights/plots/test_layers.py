"""All layers of one report as a figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.reports import heavy_noisy_and_narrow

import lightning_ww


@pytest.fixture(scope="module")
def report() -> lightning_ww.WeightReport:
    return heavy_noisy_and_narrow()


def test_a_reports_figure_has_a_dot_for_each_value(report: Any) -> None:
    figure = report.plot(["alpha", "stable_rank", "distance_from_init"])
    assert [axes.get_title() for axes in figure.axes] == ["alpha", "stable_rank"]  # nothing is known of the third
    for axes, name in zip(figure.axes, ("alpha", "stable_rank"), strict=True):
        dots = next(line for line in axes.lines if line.get_marker() == "o")
        expected = [np.nan if layer.metric(name) is None else layer.metric(name) for layer in report.layers]
        np.testing.assert_allclose(np.asarray(dots.get_xdata(), dtype=float), expected)
    assert [axes.get_title() for axes in report.plot("alpha").figure.axes] == ["alpha"]
    assert len(report.plot("all").axes) > 20
    with pytest.raises(ValueError, match="does not know 'alfa'"):
        report.plot(["alfa"])
    with pytest.raises(ValueError, match="no layer"):
        lightning_ww.WeightReport((), (), 0.0).plot()
