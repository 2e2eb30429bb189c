"""The figure and the table of a curvature spectrum show what is in it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from lightning_ww.curvature import SpectralDensity, spectral_density
from lightning_ww.curvature.plots.stems import NEAR_ZERO, NEGATIVE, POSITIVE, spectrum_figure, spectrum_table
from lightning_ww.drawing.canvas import picture


def density() -> SpectralDensity:
    values = torch.cat([torch.linspace(-0.5, 0.5, 195), torch.tensor([10.0, 20.0, 30.0, 60.0, 100.0])]).double()
    return spectral_density(torch.diag(values), num_steps=12)


def test_every_node_has_a_stem_as_high_as_its_weight_in_the_color_of_its_sign() -> None:
    found = density()
    figure: Any = spectrum_figure(found, "title", stability_edge=500.0)
    (axes,) = figure.axes
    stems: list[Any] = [c for c in axes.collections if isinstance(c, LineCollection)]
    assert [to_hex(c.get_colors()[0]).upper() for c in stems] == [POSITIVE, NEGATIVE, NEAR_ZERO]
    for stem, shares in zip(
        stems, (found.nodes > found.tol, found.nodes < -found.tol, found.nodes.abs() <= found.tol), strict=True
    ):
        drawn_here = {path.vertices[0][0] for path in stem.get_paths()}
        assert drawn_here == set(found.nodes[shares].tolist())  # as the shares in the legend have them
    drawn = np.concatenate([[path.vertices[1] for path in c.get_paths()] for c in stems])
    order = np.argsort(drawn[:, 0])
    np.testing.assert_allclose(drawn[order, 0], np.sort(found.nodes.numpy()))
    np.testing.assert_allclose(drawn[order, 1], found.weights.numpy()[np.argsort(found.nodes.numpy())])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"negative: {100 * float(found.weights[found.nodes < -found.tol].sum()):.3g} %" in legend
    assert f"close to zero: {100 * float(found.weights[found.nodes.abs() <= found.tol].sum()):.3g} %" in legend
    assert "2/lr = 500, edge of gradient descent" in legend
    assert axes.get_title(loc="left") == "title"
    filled = [
        line
        for line in axes.lines
        if line.get_markerfacecolor() in (POSITIVE, NEGATIVE, NEAR_ZERO) and len(line.get_xdata()) > 0
    ]
    heads = np.concatenate([np.asarray(line.get_xdata()) for line in filled])
    np.testing.assert_allclose(np.sort(heads), np.sort(found.nodes[found.is_simple].numpy()))


def test_outliers_that_are_labeled_are_those_that_are_counted() -> None:
    values = torch.cat([torch.linspace(0.8, 1.0, 60), torch.tensor([8.0, 20.0, 50.0, 100.0])]).double()
    found = spectral_density(torch.diag(values))
    assert found.num_outliers == 4
    (axes,) = spectrum_figure(found, "").axes
    assert [text.get_text() for text in axes.texts] == ["100", "50", "20", "8"]
    unclear = dataclasses.replace(found, residuals=torch.where(found.nodes > 99, 50.0, found.residuals))
    assert unclear.num_outliers is None  # the largest has not converged
    (axes,) = spectrum_figure(unclear, "").axes
    assert not axes.texts


@pytest.mark.parametrize("edge", [None, 1e-3, 40.0, 5e3])
@pytest.mark.parametrize("low", [-1e4, -1.0, -1e-2])
@pytest.mark.parametrize("high", [1e-2, 1.0, 1e4])
def test_labels_of_the_axis_have_room(low: float, high: float, edge: float | None) -> None:
    values = torch.cat([torch.linspace(low, low / 1e4, 20), torch.linspace(high / 1e4, high, 20)]).double()
    figure: Any = spectrum_figure(spectral_density(torch.diag(values), num_steps=40), "", edge)
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    boxes = sorted((box.x0, box.x1) for box in boxes)
    assert all(before[1] < after[0] for before, after in pairwise(boxes))
    assert len(boxes) >= 2


def test_an_edge_among_negative_eigenvalues_is_not_far_away() -> None:
    found = spectral_density(torch.diag(torch.linspace(-5, -0.1, 30).double()), num_steps=10)
    figure: Any = spectrum_figure(found, "", 1e-3)
    assert not any("far to the right" in text.get_text() for text in figure.legends[0].get_texts())


def test_an_edge_far_out_of_reach_does_not_squeeze_the_spectrum() -> None:
    (axes,) = spectrum_figure(density(), "", stability_edge=1e6).axes
    assert axes.get_xlim()[1] < 1e3


@pytest.mark.parametrize(
    "matrix", [torch.zeros(5, 5), torch.eye(4), -torch.eye(3), torch.diag(torch.tensor([1e-9, 2e-9]))]
)
def test_degenerate_spectra_have_a_picture(matrix: torch.Tensor) -> None:
    pixels = picture(lambda: spectrum_figure(spectral_density(matrix), "t", stability_edge=1.0))
    assert pixels.shape == (468, 640, 3)
    assert pixels.dtype == np.uint8
    assert len(np.unique(pixels)) > 10


def test_table_lists_facts_and_the_largest_eigenvalues() -> None:
    table = spectrum_table(density(), {"samples": "16"})
    assert "| samples | 16 |" in table
    rows = [line for line in table.splitlines() if line.startswith("| 1 ")]
    assert rows[0].startswith("| 1 | 100 | ")
    assert rows[0].endswith(" | yes |")


def test_drawing_touches_no_global_state_of_pyplot() -> None:
    code = (
        "import sys, torch\nfrom lightning_ww.curvature import spectral_density\n"
        "from lightning_ww.drawing.canvas import picture\nfrom lightning_ww.curvature.plots.stems import spectrum_figure\n"
        "picture(lambda: spectrum_figure(spectral_density(torch.eye(4)), 't'))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_edge_far_beyond_the_spectrum_is_named() -> None:
    figure: Any = spectrum_figure(density(), "t", stability_edge=1e6)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "2/lr = 1e+06: far to the right" in legend
    assert figure.axes[0].get_xlim()[1] < 1e4


def test_a_spectrum_draws_itself() -> None:
    density = spectral_density(torch.diag(torch.linspace(-1, 5, 50)), num_steps=30)
    assert "50 eigenvalues from -1 to 5" in density.plot().axes[0].get_title(loc="left")
