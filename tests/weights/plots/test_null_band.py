"""The rows of numbers beside the band of noise: places on the axis, and layers without a band."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers.reports import layer

from lightning_ww import LayerReport, analyze
from lightning_ww.drawing.canvas import picture
from lightning_ww.weights.plots.layer import layer_figure
from lightning_ww.weights.plots.null_band import LEFT, RIGHT, Row, null_rows

GRAY_OF_BAND = (187, 187, 187)


def test_a_value_has_its_logarithmic_place_within_the_ends() -> None:
    row = Row("", 1.0, (1.0, 2.0), (1.0, 100.0))
    assert row.place(10.0) == pytest.approx((LEFT + RIGHT) / 2)
    assert (row.place(0.0), row.place(0.5), row.place(1e9)) == (LEFT, LEFT, RIGHT)


def test_a_layer_has_a_row_for_each_number_whose_value_for_noise_was_measured() -> None:
    assert null_rows(layer("a", alpha_hill=2.0, rand_distance=0.1)) == []
    rows = null_rows(
        layer(
            "a",
            alpha_hill=1.92,
            alpha_hill_null=2.74,
            alpha_hill_null_sd=0.035,
            rand_distance=0.48,
            rand_distance_floor=0.009,
        )
    )
    assert [row.text for row in rows] == ["alpha_hill 1.92, noise 2.74 ± 0.07", "rand_distance 0.48, noise 0.009"]
    assert list(rows[0].band) == pytest.approx([2.67, 2.81])
    assert rows[1].ends[1] == math.sqrt(math.log(2))


def drawn(one: LayerReport) -> Any:
    return picture(lambda: layer_figure(one))


def test_the_picture_has_the_bands_of_an_untrained_layer_under_its_marks() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(64, 64)
    plain, with_bands = drawn(analyze(model).layers[0]), drawn(analyze(model, floor=True).layers[0])
    assert with_bands.shape[0] == plain.shape[0] + 60  # two rows of 0.3 inch
    assert (with_bands[-60:] == GRAY_OF_BAND).all(axis=-1).sum() > 200
