"""Which value has which color, and what stands at a color bar."""

from __future__ import annotations

import numpy as np

from lightning_ww.drawing.scale import Scale


def test_values_beyond_the_scale_have_the_color_of_its_ends_and_the_legend_says_so() -> None:
    scale = Scale(1e-3, 1e3, is_log=True)
    np.testing.assert_allclose(scale.place(np.array([0.0, 1e-9, 1e-3, 1.0, 1e3, 1e9])), [0, 0, 0, 0.5, 1, 1])
    assert np.isnan(scale.place(np.array([np.nan]))).all()
    labels = [label for _, label in scale.ticks()]
    assert (labels[0], labels[-1]) == ("≤ 0.001", "≥ 1e+03")
    linear = Scale(1, 9)
    np.testing.assert_allclose(linear.place(np.array([-5.0, 1.0, 5.0, 9.0, 99.0])), [0, 0, 0.5, 1, 1])
    assert [label for _, label in linear.ticks()] == ["≤ 1", "3", "5", "7", "≥ 9"]
