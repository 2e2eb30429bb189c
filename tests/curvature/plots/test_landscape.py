"""The figure of a landscape."""

from __future__ import annotations

import numpy as np
import torch

from lightning_ww.curvature import HessianOperator, loss_landscape, loss_plane, ritz_directions


def test_it_has_a_panel_for_each_direction_with_the_parabola_and_accuracies_on_their_own_axis() -> None:
    w = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    h = torch.tensor([1.0, 4.0, 9.0])

    def loss() -> torch.Tensor:
        return 0.5 * (h * w * w).sum()

    directions = ritz_directions(HessianOperator(loss, [w]), num_steps=3)
    functions = {"train loss": loss, "train accuracy": lambda: torch.tensor(0.5)}
    found = loss_landscape(functions, [w], directions)
    figure = found.plot()
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(panels) == len(directions)
    for axes in panels:
        curve, parabola = (line.get_ydata() for line in axes.lines[:2])
        assert np.allclose(np.asarray(curve), np.asarray(parabola), rtol=1e-3)  # of a quadratic
    assert len(figure.axes) == 2 * len(panels)
    plane = loss_plane(functions, [w], (directions[0], directions[1]), num_points=5).plot()
    assert [axes.get_title() for axes in plane.axes if axes.get_title()] == ["train loss", "train accuracy"]
