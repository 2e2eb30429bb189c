"""The matrix entropy while a network trains."""

from __future__ import annotations

import numpy as np
from claims import SEEDS, Claim, plot, save
from nets import adam, train

from lightning_ww import analyze


def followed(seed: int) -> list[float]:
    """The middle layer's entropy after each epoch."""
    curve: list[float] = []
    train(seed, epochs=30, optimizer=adam, after_epoch=lambda _, net: curve.append(analyze(net)["2"].entropy or 0.0))
    return curve


def reproduce() -> list[Claim]:
    """Follow the middle layer's entropy."""
    curves = [followed(seed) for seed in range(SEEDS)]
    figure, axes = plot.subplots(figsize=(5, 3.2))
    for curve in curves:
        axes.plot(range(1, 31), curve)
    axes.set_xlabel("epoch")
    axes.set_ylabel("entropy of the middle layer")
    save(figure, "entropy")
    ends = np.array(curves)[:, [0, -1]]
    steps = np.diff(np.array(curves), axis=1)
    return [
        Claim(
            "A layer's entropy falls while it trains, and tells little.",
            "a fall throughout",
            f"from {ends[:, 0].mean():.3f} at epoch 1 to {ends[:, 1].mean():.3f} at 30; {100 * (steps < 0).mean():.0f} % of the "
            "epochs fall",
            "holds" if (ends[:, 1] < ends[:, 0]).all() else "does not hold",
        )
    ]
