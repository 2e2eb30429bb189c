"""The figure of chains."""

from __future__ import annotations

import numpy as np
import torch

from lightning_ww.curvature.singular_learning import Sampling, sampled


def test_it_shows_each_chains_running_mean_the_estimate_and_the_verdict() -> None:
    w = torch.zeros(4, requires_grad=True)
    found = sampled(lambda: (w * w).sum(), [w], Sampling(1000, 3, 50, 50))
    figure = found.plot()
    (axes,) = figure.axes
    means = [line.get_ydata() for line in axes.lines[1:6:2]]
    for row, mean in zip(found.draws.numpy(), means, strict=True):
        assert np.allclose(np.asarray(mean), np.cumsum(row) / np.arange(1, 51))
    assert f"{found.value:.3g}" in axes.get_title()
    lost = sampled(lambda: (w**4).sum(), [w], Sampling(1000, 2, 50, 50, step_size=90.0))
    assert "not valid" in lost.plot().axes[0].get_title()
