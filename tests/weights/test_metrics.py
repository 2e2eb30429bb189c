"""The table of metrics: every row has its scale, meaning and reason."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_ww import METRICS
from lightning_ww.weights.metrics import TABLE


@pytest.mark.parametrize("metric", METRICS)
def test_a_color_bars_labels_stand_where_their_values_are_the_first_and_the_last_at_its_ends(metric: str) -> None:
    scale = TABLE[metric].scale
    places, texts = zip(*scale.ticks(), strict=True)
    assert (places[0], places[-1]) == (0, 1)
    assert (texts[0], texts[-1]) == (f"≤ {scale.low:.3g}", f"≥ {scale.high:.3g}")
    values = np.array([float(text.strip("≤≥ ")) for text in texts])
    np.testing.assert_allclose(scale.place(values), places, atol=1e-9)
    assert np.diff(places).min() >= 0.15  # so that they do not touch
