"""PNG files, read again by Pillow."""

from __future__ import annotations

import io

import numpy as np
from helpers.reports import heavy_noisy_and_narrow
from PIL import Image

from lightning_ww.drawing.canvas import picture
from lightning_ww.drawing.heat_map import heat_map
from lightning_ww.drawing.png import palette_png
from lightning_ww.drawing.scale import Scale


def test_a_picture_keeps_its_colors_in_a_smaller_file() -> None:
    cells = np.random.default_rng(0).random((19, 30))
    names = [str(i) for i in range(30)]
    for pixels in (
        picture(heavy_noisy_and_narrow()["0"].plot),
        heat_map("a map", names[:19], names, cells, Scale(0, 1)),
    ):
        file, full = palette_png(pixels), io.BytesIO()
        Image.fromarray(pixels).save(full, "png")
        assert len(file) < 0.5 * len(full.getvalue())
        again = np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int)
        assert np.abs(again - pixels).max() <= 20  # of 255
