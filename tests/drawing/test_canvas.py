"""Figures that no global state knows of, in matplotlib's own style."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lightning_ww
from lightning_ww.drawing.canvas import picture


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


def test_pictures_have_matplotlibs_own_style_and_leave_the_users_alone(report: Any) -> None:
    import matplotlib

    plain = picture(report["0"].plot)
    with matplotlib.rc_context(
        {"font.size": 20, "axes.facecolor": "black", "text.color": "white", "lines.linewidth": 9}
    ):
        before = dict(matplotlib.rcParams)
        np.testing.assert_array_equal(picture(report["0"].plot), plain)
        assert dict(matplotlib.rcParams) == before
        dark = {
            str(line.get_label()): line for line in report["0"].plot().axes[0].lines
        }  # a user's own plot is in theirs
        assert dark["Marchenko–Pastur"].get_color() == "white"


def test_drawing_loads_no_pyplot() -> None:
    code = (
        "import sys, torch, lightning_ww\n"
        "from lightning_ww.curvature import spectral_density\n"
        "from lightning_ww.drawing.canvas import picture\n"
        "from lightning_ww.curvature.plots.evolution import evolution\n"
        "report = lightning_ww.analyze(torch.nn.Linear(60, 40))\n"
        "density = spectral_density(torch.eye(4))\n"
        "for figure in (report.plot(), report.layers[0].plot(), density.plot()): picture(lambda: figure)\n"
        "evolution('t', [density], [0], [None])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
