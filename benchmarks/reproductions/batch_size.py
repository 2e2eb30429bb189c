"""Smaller batches make heavier tails."""

from __future__ import annotations

import numpy as np
import torch
from claims import SEEDS, Claim, plot, save
from nets import train
from scipy.stats import kendalltau

from lightning_ww import analyze

BATCHES = (4, 8, 16, 32, 64, 128)


def reproduce() -> list[Claim]:
    """Change the batch size alone: rate 0.05 without momentum, 15 epochs."""
    alphas, hills, tests = (np.zeros((len(BATCHES), SEEDS)) for _ in range(3))
    for i, batch in enumerate(BATCHES):
        for seed in range(SEEDS):
            run = train(seed, batch=batch, epochs=15, optimizer=lambda p: torch.optim.SGD(p, 0.05))
            layer = analyze(run.network)["2"]
            alphas[i, seed], hills[i, seed], tests[i, seed] = (
                layer.alpha or np.nan,
                layer.alpha_hill or np.nan,
                run.test,
            )
    figure, (left, right) = plot.subplots(1, 2, figsize=(8, 3.2))
    left.semilogx(BATCHES, np.nanmean(alphas, 1), "o-", base=2, label="alpha")
    left.semilogx(BATCHES, np.nanmean(hills, 1), "s-", base=2, label="alpha_hill")
    left.legend()
    right.semilogx(BATCHES, 100 * tests.mean(1), "o-", base=2)
    right.set_ylabel("test accuracy, %")
    for axes in (left, right):
        axes.set_xlabel("batch size")
    save(figure, "batch_size")
    tau = kendalltau(np.repeat(BATCHES, SEEDS), alphas.ravel(), nan_policy="omit").statistic
    return [
        Claim(
            "Smaller batches give heavier tails: a smaller alpha (Martin, Mahoney 2021).",
            "alpha rises with the batch size",
            f"middle layer: {', '.join(f'{b}: {a:.2f}' for b, a in zip(BATCHES, np.nanmean(alphas, 1), strict=True))}; "
            f"Kendall's tau {tau:.2f} over {alphas.size} runs",
            "holds" if tau > 0.4 else "holds in part" if tau > 0.1 else "does not hold",
        )
    ]
