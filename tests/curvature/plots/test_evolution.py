"""How a curvature spectrum moves, as one image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lightning_ww.curvature import spectral_density
from lightning_ww.curvature.plots.evolution import SHARES, evolution
from lightning_ww.drawing.heat_map import FRAME, MISSING


def test_the_evolution_has_each_spectrums_shares_in_their_rows() -> None:
    spectra = [
        spectral_density(torch.diag(torch.tensor([top, 0.5, 0.0, -0.5]).double()), num_steps=4) for top in (3.0, 30.0)
    ]
    image = evolution("t", spectra, [0, 10], [None, 20.0])
    highest = evolution("t", spectra, [0, 10], [None, 100.0])  # where the topmost row begins
    assert (highest[84 : 84 + 20] == FRAME).all(axis=2).any()
    for picture_of in (image, highest):
        assert (picture_of[-28:, -6:] == 255).all()  # the note ends within
    left = image[84 : 84 + 15 * 20, 2:30]
    assert (left != 255).any(axis=2).any(axis=1).sum() < 0.4 * len(left)  # most rows have no name
    middle = [image[:, 100], image[:, -60]]
    quarter = SHARES.place(np.array([0.25]))
    import matplotlib

    color = matplotlib.colormaps["viridis"](float(quarter[0]), bytes=True)[:3]
    for column in middle:
        cells = (np.abs(column[84:].astype(int) - color) <= 3).all(axis=1)
        assert cells.sum() == pytest.approx(4 * 19, abs=8)  # four rows of twenty pixels, one of them a line
        assert (column == MISSING).all(axis=1).any()


def test_after_an_early_spike_the_rest_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_ww.curvature.plots import evolution as module

    seen: list[Any] = []
    monkeypatch.setattr(module, "heat_map", lambda *arguments, **_: seen.append(arguments))
    spectra = [
        spectral_density(torch.diag(torch.tensor([top, 0.5, 0.1, 0.0]).double()), num_steps=4) for top in (1e3, 2.0)
    ]
    evolution("t", spectra, [0, 10], [None, None])
    _, rows, _, values, _ = seen[0]
    zero = rows.index("0")
    assert np.isfinite(values[:zero, 1]).sum() == 3  # each of its positive eigenvalues above zero
    assert values[zero, 1] == pytest.approx(0.25)
