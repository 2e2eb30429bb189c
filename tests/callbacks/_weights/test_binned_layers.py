"""The bins of logged layers' histograms: fixed at first sight, and the same after a checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lightning_ww import analyze
from lightning_ww.callbacks._weights.binned_layers import BinnedLayers
from lightning_ww.weights.plots.histogram import EsdBins


def test_bins_stay_as_they_were_first_and_only_logged_layers_have_some() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32))
    first, layers = analyze(model), BinnedLayers(2)
    layers.choose(first, [])
    assert layers.names == ["0", "2"]
    assert layers.bins("1") is None
    spectrum = first["0"].spectrum
    assert spectrum is not None
    expected = EsdBins.about(spectrum.eigenvalues)
    with torch.no_grad():
        model[0].weight.mul_(1000)
    layers.choose(analyze(model), ["1"])
    assert layers.names == ["0", "2", "1"]
    assert layers.bins("0") == expected
    assert layers.bins("1") is not None
    again = BinnedLayers(2)
    again.load_state_dict(layers.state_dict())
    assert (again.names, again.bins("0")) == (layers.names, expected)
