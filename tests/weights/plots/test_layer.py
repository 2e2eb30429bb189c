"""A layer's spectrum, all layers of a report, the evolution of a curvature, TensorBoard's overview."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import torch
from helpers.reports import heavy_noisy_and_narrow
from matplotlib.patches import StepPatch
from torch import nn

import lightning_ww
from lightning_ww import WeightReport
from lightning_ww._errors import NoValueError
from lightning_ww.curvature import spectral_density
from lightning_ww.curvature.plots.stems import spectrum_figure
from lightning_ww.drawing.canvas import picture
from lightning_ww.weights import compare_tails, fit_power_law
from lightning_ww.weights.plots.layer import tail_caption


@pytest.fixture(scope="module")
def report() -> lightning_ww.WeightReport:
    return heavy_noisy_and_narrow()


def edges_of(axes: Any) -> Any:
    """Of the bins of its histograms."""
    return next(patch for patch in axes.patches if isinstance(patch, StepPatch)).get_data()[1]


def test_a_layers_figure_shows_its_fit_its_shuffle_and_its_traps(report: Any) -> None:
    layer = report["0"]
    assert layer.correlation_traps >= 1
    figure = layer.plot()
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    fit = lines[f"power law, tail of {layer.num_tail} of 100"]
    x, y = np.asarray(fit.get_xdata()), np.asarray(fit.get_ydata())
    slopes = np.diff(np.log(y)) / np.diff(np.log(x))
    np.testing.assert_allclose(slopes, -layer.alpha)
    assert x[0] == pytest.approx(layer.xmin)
    np.testing.assert_allclose(lines[f"xmin = {layer.xmin:.3g}"].get_xdata(), layer.xmin)
    # the fit holds as many eigenvalues as the tail: ∫ p dλ from xmin is num_tail / n
    assert y[0] * x[0] / (layer.alpha - 1) == pytest.approx(layer.num_tail / 100)
    low, high = axes.get_ylim()
    assert 0.01 < low * 100 * (edges_of(axes)[-1] - edges_of(axes)[-2]) < 1 < high / low  # one eigenvalue is seen
    traps = lines[f"correlation traps: {layer.correlation_traps}"]
    np.testing.assert_allclose(np.max(traps.get_xdata()), layer.max_rand_eigenvalue)
    edge = next(line for label, line in lines.items() if label.startswith("its edge"))
    variance = float(np.square(layer.spectrum.singular_values).sum()) / (200 * 100)
    np.testing.assert_allclose(edge.get_xdata(), variance * (200**0.5 + 100**0.5) ** 2)
    own = next(patch for patch in axes.patches if isinstance(patch, StepPatch) and patch.get_label() == "this layer")
    heights, edges, _ = own.get_data()
    assert np.nansum(heights * np.diff(edges)) == pytest.approx(1)
    title = axes.get_title(loc="left")
    assert f"alpha {layer.alpha:.2f} ± {layer.alpha_stderr:.2f}, D {layer.ks_distance:.3f}" in title
    assert "Power law against" not in title


def drawn_traps(figure: Any) -> list[float]:
    """Where its triangles stand."""
    lines = [line for line in figure.axes[0].lines if str(line.get_label()).startswith("correlation traps")]
    return sorted(float(x) for line in lines for x in line.get_xdata())


def test_a_convolutions_traps_are_marked_where_they_are_not_at_its_largest_eigenvalues() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, 3))
    with torch.no_grad():
        weight: Any = model[0].weight
        weight[..., 0, 0] *= 0.1  # a small slice with a large element, which is small beside the others
        weight[3, 5, 0, 0] = 0.03
    layer = lightning_ww.analyze(model)["0"]
    assert layer.correlation_traps == 1
    (trap,) = drawn_traps(layer.plot())
    slices: Any = layer.shuffled
    shuffled = np.square(slices)
    assert trap == pytest.approx(shuffled[0].max())  # of its own slice
    assert trap < 0.5 * shuffled.max()


def test_the_bulk_of_unlike_slices_is_the_mean_of_theirs_by_its_moments() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(40, 90, (1, 3)))
    with torch.no_grad():
        weight: Any = model[0].weight
        weight[..., 0] *= 10
    layer: Any = lightning_ww.analyze(model, shuffle="off")["0"]  # which it does not need
    (line,) = (line for line in layer.plot().axes[0].lines if line.get_label() == "Marchenko–Pastur")
    x, y = np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)
    assert np.trapezoid(y, x) == pytest.approx(1, abs=0.02)
    assert np.trapezoid(x * y, x) == pytest.approx(layer.spectrum.eigenvalues.mean(), rel=0.02)


def test_a_bulk_that_was_fitted_is_the_one_that_is_drawn() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(120, 80))
    with torch.no_grad():
        weight: Any = model[0].weight
        weight += 0.5 * torch.randn(80, 1) @ torch.randn(1, 120)
    layer: Any = lightning_ww.analyze(model, mp_fit=True)["0"]
    lines = {str(line.get_label()): line for line in layer.plot().axes[0].lines}
    edge = lines[f"its edge, {layer.bulk_max:.3g}"]
    np.testing.assert_allclose(np.asarray(edge.get_xdata(), dtype=float), layer.bulk_max)
    x = np.asarray(lines["Marchenko–Pastur, fitted"].get_xdata(), dtype=float)
    assert x[0] == pytest.approx(layer.bulk_min, rel=0.1)


def test_a_collapsed_layers_tail_is_shown_from_where_it_begins_and_what_is_left_out_is_counted() -> None:
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(80, 60).double())[0] for _ in range(2))
    model = nn.Sequential(nn.Linear(80, 80)).double()
    with torch.no_grad():
        weight: Any = model[0].weight
        weight.copy_(left @ torch.diag(torch.logspace(-9, 0, 60).double()) @ right.T)
    layer: Any = lightning_ww.analyze(model)["0"]
    figure = layer.plot()
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    assert low < layer.xmin
    (own,) = (patch for patch in axes.patches if str(patch.get_label()).startswith("this layer"))
    below = int((layer.spectrum.eigenvalues < low).sum())
    assert below >= 20
    assert own.get_label() == f"this layer ({below} are smaller)"
    assert high / low < 1e13


def area(figure: Any, label: str) -> float:
    """Under a histogram."""
    patches = [one for one in figure.axes[0].patches if str(one.get_label()).startswith(label)]
    heights, edges, _ = patches[0].get_data()
    return float(np.nansum(heights * np.diff(edges)))


def test_of_a_convolution_with_dead_slices_layer_shuffle_and_bulk_are_comparable() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(80, 40, 2))
    with torch.no_grad():
        weight: Any = model[0].weight
        weight[..., 0, :] = 0
        weight[..., 1, 0] = 0  # one of four is left
    figure = lightning_ww.analyze(model)["0"].plot()
    assert area(figure, "this layer") == pytest.approx(0.25)
    assert area(figure, "shuffled") == pytest.approx(0.25)
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "Marchenko–Pastur")
    x, y = (np.asarray(values, dtype=float) for values in (line.get_xdata(), line.get_ydata()))
    assert np.trapezoid(y, x) == pytest.approx(0.25, abs=0.01)
    assert any("this layer (120 are smaller)" in text.get_text() for text in figure.legends[0].get_texts())


def test_whatever_the_legend_names_is_within_the_axes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 60))
    weight: Any = model[0].weight
    nn.init.orthogonal_(weight)
    for options in ({"shuffle": "off"}, {"mp_fit": True}, {}):
        axes = lightning_ww.analyze(model, **options)["0"].plot().axes[0]
        low, high = axes.get_xlim()
        marks = [x for x in (np.asarray(line.get_xdata(), dtype=float) for line in axes.lines) if np.ptp(x) == 0]
        assert marks  # an edge at least
        assert all(low <= x[0] <= high for x in marks)


def outside(figure: Any) -> list[str]:
    """Texts that do not lie within the picture."""
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    low, high = figure.axes[0].get_xlim()
    ticks = [
        text for text in figure.axes[0].get_xticklabels() if low <= text.get_position()[0] <= high
    ]  # others are not drawn
    texts = [*ticks, *figure.legends[0].get_texts(), figure.axes[0]._left_title]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    return [text for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]


@pytest.mark.parametrize("size", [10, 18])
@pytest.mark.parametrize("automatic", [False, True])
def test_nothing_is_cut_off_in_whatever_style(size: int, automatic: bool, report: Any) -> None:
    import matplotlib

    layer = dataclasses.replace(
        report["0"], name="conformer_module.mmmmmmm.WWWWWWWWWWWWWW.mmmmmmmmmmmmmmmm.mmmmmmmmmmmmmmmm.WWWWWWWWWWW"
    )
    spectrum = spectral_density(torch.diag(torch.cat([-torch.logspace(-8, -2, 40), torch.logspace(-8, 2, 40)])))
    with matplotlib.rc_context({"font.size": size, "figure.constrained_layout.use": automatic}):
        for figure in (layer.plot(), layer.plot(compare=True)):
            assert outside(figure) == []
            (axes,) = figure.axes
            assert figure.legends[0].get_window_extent().y1 <= axes.xaxis.label.get_window_extent().y0 + 2
        for edge in (2e3, 6666.7, 1.5e7, 1e-4):
            assert (
                outside(
                    spectrum_figure(spectrum, "Gauss–Newton spectrum after 176000 steps: from -1.23e-08 to 123", edge)
                )
                == []
            )


@pytest.mark.parametrize("name", ["x" * 700, ".".join(["a_rather_long_module_name"] * 12), "a$\\foo$"])
def test_any_name_can_be_drawn(name: str, report: Any) -> None:
    layer = dataclasses.replace(report["0"], name=name)
    for figure in (layer.plot(), layer.plot(compare=True), WeightReport((layer,), (), 0.0).plot()):
        pixels = picture(lambda figure=figure: figure)  # type: ignore[misc]
        assert pixels.shape[0] <= 800
    axes = layer.plot(compare=True).axes[0]
    assert outside(layer.plot()) == []
    assert axes.get_position().height * layer.plot(compare=True).get_size_inches()[1] == pytest.approx(2.3)


def test_the_comparison_of_tails_is_powerlaws_and_stands_there_when_asked(report: Any) -> None:
    layer = report["0"]
    fit = fit_power_law(layer.spectrum.eigenvalues)
    compared = compare_tails(layer.spectrum.eigenvalues, fit)
    exponential = compared["exponential"]
    assert exponential is not None
    caption = tail_caption(layer)
    assert f"exponential: R = {exponential.log_likelihood_ratio:+.2f}, p = {exponential.p_value:.2g}" in caption
    title = layer.plot(compare=True).axes[0].get_title(loc="left")
    assert re.sub(r"\s", "", caption) in re.sub(r"\s", "", title)


def test_a_layer_without_a_spectrum_says_why_it_cannot_be_drawn(report: Any) -> None:
    import dataclasses

    layer = dataclasses.replace(report["0"], spectrum=None, reasons={"alpha": "too large"})
    with pytest.raises(NoValueError, match=re.escape("layer '0' has no spectrum to draw: too large.")):
        layer.plot()
    zero = nn.Linear(30, 20)
    nn.init.zeros_(zero.weight)
    with pytest.raises(NoValueError, match="no spectrum to draw: the weight is zero"):
        lightning_ww.analyze(zero).layers[0].plot()


def test_a_name_is_no_formula(report: Any) -> None:
    import dataclasses

    odd = dataclasses.replace(report["0"], name="x$\\foo$y" + "." + "long" * 20)
    figure = odd.plot()
    picture(lambda: figure)  # parsed as a formula it would fail
    assert figure.axes[0].get_title(loc="left").startswith("x$\\foo$y")
