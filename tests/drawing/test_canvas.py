"""Figures that no global state knows of, in matplotlib's own style."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from helpers.reports import heavy_noisy_and_narrow

import lightning_ww
from lightning_ww.drawing.canvas import BOX, drawable, picture


@pytest.fixture(scope="module")
def report() -> lightning_ww.WeightReport:
    return heavy_noisy_and_narrow()


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


def test_the_users_settings_are_left_alone_while_their_own_threads_run(report: Any) -> None:
    import matplotlib

    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    with matplotlib.rc_context({"lines.linewidth": 9.0}):
        thread.start()
        widths = []

        def draw() -> Any:
            widths.append(matplotlib.rcParams["lines.linewidth"])
            return report["0"].plot()

        picture(draw)
        done.set()
        thread.join()
        picture(draw)
    assert widths == [9.0, matplotlib.rcParamsDefault["lines.linewidth"]]


def test_once_only_warnings_of_others_are_not_repeated_because_we_drew(report: Any) -> None:
    picture(report["0"].plot)  # imports change the filters of warnings
    registry: dict[Any, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            warnings.warn_explicit("once", UserWarning, "elsewhere.py", 1, registry=registry)
            picture(report["0"].plot)
    assert len([w for w in caught if str(w.message) == "once"]) == 1


def test_letters_that_the_font_does_not_have_are_boxes_and_codes_are_escaped() -> None:
    assert drawable("layer.é") == "layer.é"
    assert drawable("层\n\x00") == f"{BOX}\\n\\x00"
