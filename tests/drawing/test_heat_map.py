"""Heat-maps: every cell has the color of its value on the metric's scale, missing ones are gray, flagged ones framed."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_ww import METRICS
from lightning_ww.drawing.heat_map import (
    FRAME,
    MISSING,
    WIDTH,
    chosen,
    heat_map,
)
from lightning_ww.drawing.scale import Scale
from lightning_ww.weights.metrics import TABLE


def color(place: float) -> tuple[int, ...]:
    """Of matplotlib's viridis."""
    return tuple(np.asarray(matplotlib.colormaps["viridis"](place, bytes=True))[:3].tolist())


def centers(image: NDArray[np.uint8], rows: int, columns: int) -> list[list[tuple[int, ...]]]:
    """The color in the middle of each cell, between the white margins."""
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
def test_each_cell_has_the_color_of_its_value(rows: int) -> None:
    values = np.linspace(1, 9, rows * 4).reshape(rows, 4)
    values[1, 2] = np.nan
    names = [f"blocks.{i}.attention" for i in range(rows)]
    image = heat_map("alpha", names, ["0", "10", "20", "30"], values, TABLE["alpha"].scale)
    assert image.dtype == np.uint8
    assert image.shape[1] == WIDTH
    assert (image.shape[0] - 84 - 40) // rows >= 15  # letters of fourteen pixels do not run into each other
    found = centers(image, rows, 4)
    for i in range(rows):
        for j in range(4):
            if (i, j) == (1, 2):
                assert found[i][j] == MISSING
            else:
                place = round(255 * (values[i, j] - 1) / 8) / 255
                np.testing.assert_allclose(found[i][j], color(place), atol=3)


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


def ink_at(image: NDArray[np.uint8], rows: slice, columns: slice) -> int:
    """How many pixels there are not white."""
    return int((image[rows, columns] != 255).any(axis=2).sum())


def test_no_text_is_cut_off() -> None:
    for metric in METRICS:
        title, note = (
            f"{metric}, by layer and optimizer steps made",
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
    assert (np.abs(row.astype(int) - color(1.0)) <= 3).all(axis=1).any()


def test_of_many_columns_some_are_shown_the_first_and_the_last_among_them() -> None:
    assert chosen(3, 10) == [0, 1, 2]
    some = chosen(1000, 200)
    assert len(some) == 200
    assert (some[0], some[-1]) == (0, 999)
    image = heat_map("t", ["a"], [str(i) for i in range(200)], np.arange(200.0)[None], Scale(0, 199))
    row = image[84 + 26].astype(int)
    cells = np.flatnonzero((row != 255).any(axis=1) & (row != row[:, :1]).any(axis=1))
    np.testing.assert_allclose(row[cells[0]], color(0.0), atol=3)
    np.testing.assert_allclose(row[cells[-1]], color(1.0), atol=3)
    assert np.diff(row[cells][:, 1]).min() >= -3  # viridis: ever more green
