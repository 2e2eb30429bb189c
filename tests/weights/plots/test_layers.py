"""All layers of one report as a figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lightning_ww


@pytest.fixture(scope="module")
def report() -> lightning_ww.WeightReport:
    """A layer with a heavy tail and one large element, one of noise, one too narrow to fit."""
    torch.manual_seed(0)
    first = nn.Linear(200, 100)
    model = nn.Sequential(first, nn.Linear(100, 60), nn.Linear(60, 3))
    with torch.no_grad():
        u, v = torch.randn(100, 20), torch.randn(20, 200) * torch.logspace(0, -1.2, 20)[:, None]
        first.weight.add_(u @ v / 200)
        first.weight[3, 5] = 1.5
    return lightning_ww.analyze(model)


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
