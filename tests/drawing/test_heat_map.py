"""Heat-maps: every cell has the colour of its value on the metric's scale, missing ones are grey, flagged ones framed."""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lightning_ww import METRICS
from lightning_ww.drawing.heat_map import (
    FRAME,
    MISSING,
    WIDTH,
    chosen,
    heat_map,
)
from lightning_ww.drawing.labels import MAX_LABEL, labels, shortened
from lightning_ww.drawing.scale import Scale
from lightning_ww.weights.metrics import TABLE


def colour(place: float) -> tuple[int, ...]:
    """Of matplotlib's viridis."""
    return tuple(np.asarray(matplotlib.colormaps["viridis"](place, bytes=True))[:3].tolist())


def centres(image: NDArray[np.uint8], rows: int, columns: int) -> list[list[tuple[int, ...]]]:
    """The colour in the middle of each cell, between the white margins."""
    top = 84
    height = next(h for h in (30, 20, 15) if (image.shape[0] - top) // h >= rows)
    inked = (image[top + 1] != 255).any(axis=1)
    steps = np.flatnonzero(np.diff(np.concatenate([[False], inked, [False]]).astype(int)))
    left, right = max(zip(steps[::2], steps[1::2], strict=True), key=lambda run: run[1] - run[0])  # not a letter
    edges = np.linspace(left, right, columns + 1)
    return [
        [
            tuple(image[top + r * height + height - 4, int((edges[c] + edges[c + 1]) / 2)].tolist())
            for c in range(columns)
        ]
        for r in range(rows)
    ]


@pytest.mark.parametrize("rows", [5, 30, 150])
def test_each_cell_has_the_colour_of_its_value(rows: int) -> None:
    values = np.linspace(1, 9, rows * 4).reshape(rows, 4)
    values[1, 2] = np.nan
    names = [f"blocks.{i}.attention" for i in range(rows)]
    image = heat_map("alpha", names, ["0", "10", "20", "30"], values, TABLE["alpha"].scale)
    assert image.dtype == np.uint8
    assert image.shape[1] == WIDTH
    assert (image.shape[0] - 84 - 40) // rows >= 15  # letters of fourteen pixels do not run into each other
    found = centres(image, rows, 4)
    for i in range(rows):
        for j in range(4):
            if (i, j) == (1, 2):
                assert found[i][j] == MISSING
            else:
                place = round(255 * (values[i, j] - 1) / 8) / 255
                np.testing.assert_allclose(found[i][j], colour(place), atol=3)


def test_flagged_cells_are_framed_and_others_are_not() -> None:
    values = np.full((3, 6), 5.0)
    framed = np.zeros((3, 6), dtype=bool)
    names = ["a", "b", "c"]
    columns = [str(i) for i in range(6)]
    plain = heat_map("t", names, columns, values, Scale(0, 10), framed=framed)
    assert not (plain == FRAME).all(axis=2).any()
    framed[1, 2:4] = True
    marked = (heat_map("t", names, columns, values, Scale(0, 10), framed=framed) == FRAME).all(axis=2)
    ys, xs = np.nonzero(marked)
    assert ys.min() >= 84 + 30
    assert ys.max() < 84 + 60
    spread = xs.max() - xs.min()
    cells = np.flatnonzero((plain[84 + 15] != 255).any(axis=1))
    assert spread == pytest.approx((cells[-1] - cells[0]) / 3, rel=0.35)  # two of six cells, and some letters


def test_values_beyond_the_scale_have_the_colour_of_its_ends_and_the_legend_says_so() -> None:
    scale = Scale(1e-3, 1e3, is_log=True)
    np.testing.assert_allclose(scale.place(np.array([0.0, 1e-9, 1e-3, 1.0, 1e3, 1e9])), [0, 0, 0, 0.5, 1, 1])
    assert np.isnan(scale.place(np.array([np.nan]))).all()
    labels = [label for _, label in scale.ticks()]
    assert (labels[0], labels[-1]) == ("≤ 0.001", "≥ 1e+03")
    linear = Scale(1, 9)
    np.testing.assert_allclose(linear.place(np.array([-5.0, 1.0, 5.0, 9.0, 99.0])), [0, 0, 0.5, 1, 1])
    assert [label for _, label in linear.ticks()] == ["≤ 1", "3", "5", "7", "≥ 9"]


def test_long_names_keep_their_numbers_and_their_end() -> None:
    assert shortened("encoder.0") == "encoder.0"
    long = shortened("transformer.blocks.12.attention.q_projection")
    assert len(long) <= MAX_LABEL
    assert ".12." in long
    assert long.endswith(".q_projection")
    assert len(shortened("x" * 80)) <= MAX_LABEL


ADAPTER = [
    f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_{side}.default" for i in (1, 10, 11) for side in "AB"
]
TRANSLATOR = [
    f"base_model.model.model.{part}.layers.{i}.{attention}.q_proj.lora_A.default"
    for part in ("encoder", "decoder")
    for i in (1, 10)
    for attention in ("self_attn", "encoder_attn")
]
DIFFUSER = [f"down_blocks.{i}.attentions.0.transformer_blocks.0.attn{k}.to_out.0" for i in (0, 1) for k in (1, 2)]


@pytest.mark.parametrize(
    "names", [ADAPTER, TRANSLATOR, DIFFUSER, ["x" * 40 + c + "x" * 40 for c in "abc"], ["a", "a.b"]]
)
def test_no_two_layers_have_one_label_and_none_is_too_long(names: list[str]) -> None:
    short = labels(names)
    assert len(set(short)) == len(names)
    assert max(map(len, short)) <= MAX_LABEL
    for name, label in zip(names, short, strict=True):  # what all names begin with holds no numbers here
        assert re.findall(r"(?<=\.)\d+(?=\.)", f".{label}.") == re.findall(r"(?<=\.)\d+(?=\.)", f".{name}.")


@given(
    st.lists(
        st.lists(
            st.sampled_from(["a", "attention", "self_attn", "block", "1", "10", "x#1", "lora_A"]),
            min_size=1,
            max_size=12,
        ),
        min_size=1,
        max_size=30,
        unique_by=tuple,
    )
)
def test_no_names_at_all_share_a_label(parts: list[list[str]]) -> None:
    short = labels([".".join(one) for one in parts])
    assert len(set(short)) == len(parts)
    assert max(map(len, short)) <= MAX_LABEL


def test_a_number_is_not_given_twice() -> None:
    names = ["ab" + "c" * 30, "ab" + "d" * 30, "ab#1", "ab" + "c" * 30 + "d"]
    assert len(set(labels(names))) == 4


def test_short_names_stay_as_they_are() -> None:
    assert labels(["encoder.0", "encoder.1"]) == ["encoder.0", "encoder.1"]


@pytest.mark.parametrize("metric", METRICS)
def test_a_colour_bars_labels_stand_where_their_values_are_the_first_and_the_last_at_its_ends(metric: str) -> None:
    scale = TABLE[metric].scale
    places, texts = zip(*scale.ticks(), strict=True)
    assert (places[0], places[-1]) == (0, 1)
    assert (texts[0], texts[-1]) == (f"≤ {scale.low:.3g}", f"≥ {scale.high:.3g}")
    values = np.array([float(text.strip("≤≥ ")) for text in texts])
    np.testing.assert_allclose(scale.place(values), places, atol=1e-9)
    assert np.diff(places).min() >= 0.15  # so that they do not touch


def ink_at(image: NDArray[np.uint8], rows: slice, columns: slice) -> int:
    """How many pixels there are not white."""
    return int((image[rows, columns] != 255).any(axis=2).sum())


def test_no_text_is_cut_off() -> None:
    for metric in METRICS:
        title, note = (
            f"{metric}, by layer and optimiser steps made",
            "150 of 1000 layers: flagged ones, the others evenly by depth. ",
        )
        framed = np.ones((1, 2), dtype=bool)
        image = heat_map(
            title,
            ["a"],
            ["0", "1"],
            np.ones((1, 2)),
            TABLE[metric].scale,
            framed=framed,
            note=note + "Framed: flagged.",
        )
        assert ink_at(image, slice(0, 36), slice(WIDTH - 6, WIDTH)) == 0
        assert ink_at(image, slice(image.shape[0] - 28, None), slice(WIDTH - 6, WIDTH)) == 0
        assert ink_at(image, slice(0, 36), slice(12, WIDTH - 6)) > 100


def test_the_first_columns_name_does_not_cover_the_unit() -> None:
    columns = [str(120_000 + i) for i in range(180)]
    image = heat_map("t", ["a"], columns, np.ones((1, 180)), Scale(0, 2))
    few = heat_map("t", ["a"], [" "] * 180, np.ones((1, 180)), Scale(0, 2))
    left = int(np.flatnonzero((image[84 + 26] != 255).any(axis=1))[0])
    below = slice(84 + 30 + 6, None)
    np.testing.assert_array_equal(image[below, : left - 6], few[below, : left - 6])  # the unit alone


def test_wide_names_leave_little_room_and_cells_are_drawn_nevertheless() -> None:
    framed = np.zeros((1, 200), dtype=bool)
    framed[0, :2] = True
    columns = [str(i) for i in range(200)]
    image = heat_map("t", ["W" * 26], columns, np.full((1, 200), 2.0), Scale(0, 2), framed=framed)
    assert image.shape[1] == WIDTH
    row = image[84 + 26]
    assert (row == FRAME).all(axis=1).any()
    assert (np.abs(row.astype(int) - colour(1.0)) <= 3).all(axis=1).any()


def test_of_many_columns_some_are_shown_the_first_and_the_last_among_them() -> None:
    assert chosen(3, 10) == [0, 1, 2]
    some = chosen(1000, 200)
    assert len(some) == 200
    assert (some[0], some[-1]) == (0, 999)
    image = heat_map("t", ["a"], [str(i) for i in range(200)], np.arange(200.0)[None], Scale(0, 199))
    row = image[84 + 26].astype(int)
    cells = np.flatnonzero((row != 255).any(axis=1) & (row != row[:, :1]).any(axis=1))
    np.testing.assert_allclose(row[cells[0]], colour(0.0), atol=3)
    np.testing.assert_allclose(row[cells[-1]], colour(1.0), atol=3)
    assert np.diff(row[cells][:, 1]).min() >= -3  # viridis: ever more green
