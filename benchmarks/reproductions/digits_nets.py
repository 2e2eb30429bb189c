"""Mean alpha and its like against test accuracy, over 60 networks on digits."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from claims import Claim, plot, save
from nets import train
from scipy.stats import kendalltau

from lightning_ww import analyze

METRICS = ("alpha", "alpha_weighted", "log_norm", "rand_distance", "distance_from_init_relative")
EXPECTED = {"alpha": -1, "alpha_weighted": -1, "log_norm": -1, "rand_distance": 1, "distance_from_init_relative": -1}
"""The sign that the documents' claims give the correlation with test accuracy."""


def networks() -> list[dict[str, object]]:
    """Sixty networks: depth, width, rate, decay, batch and label noise."""
    random = np.random.default_rng(0)
    grid = list(itertools.product((1, 2, 3), (64, 128, 256), (3e-4, 1e-3, 3e-3), (0.0, 0.1), (16, 64), (0.0, 0.2)))
    chosen = random.choice(len(grid), 60, replace=False)
    names = ("depth", "width", "rate", "decay", "batch", "noise")
    return [dict(zip(names, grid[i], strict=True)) for i in sorted(chosen)]


def reproduce() -> list[Claim]:
    """Train and correlate, over all and within equal depths."""
    rows, depths = [], []
    for seed, options in enumerate(networks()):
        depth, width = int(options["depth"]), int(options["width"])  # type: ignore[call-overload]
        run = train(
            seed,
            widths=(64, *[width] * depth, 10),
            epochs=25,
            batch=int(options["batch"]),  # type: ignore[call-overload]
            noise=float(options["noise"]),  # type: ignore[arg-type]
            optimizer=lambda p, o=options: torch.optim.AdamW(p, o["rate"], weight_decay=o["decay"]),  # type: ignore[misc]
        )
        summary = analyze(run.network, initial=run.initial).summary
        rows.append([*(summary.get(metric, np.nan) for metric in METRICS), run.test])
        depths.append(depth)
    found, depth_of = np.array(rows), np.array(depths)
    figure, all_axes = plot.subplots(1, len(METRICS), figsize=(15, 3.2), sharey=True)
    claims = []
    for i, (metric, axes) in enumerate(zip(METRICS, all_axes, strict=True)):
        over_all = kendalltau(found[:, i], found[:, -1], nan_policy="omit")
        within = [float(kendalltau(found[depth_of == d, i], found[depth_of == d, -1]).statistic) for d in (1, 2, 3)]
        for d in (1, 2, 3):
            axes.plot(found[depth_of == d, i], 100 * found[depth_of == d, -1], "o", label=f"{d} hidden")
        axes.set_xlabel(metric)
        tau = float(over_all.statistic)
        is_right = EXPECTED[metric] * tau > 0.2 and float(over_all.pvalue) < 0.05
        is_flipped = any(value * tau < 0 and abs(value) > 0.1 for value in within)
        claims.append(
            Claim(
                f"Mean `{metric}` goes with test accuracy.",
                f"Kendall's tau {'above' if EXPECTED[metric] > 0 else 'below'} zero",
                f"tau {tau:+.2f} (p = {over_all.pvalue:.1g}) over 60 networks; {', '.join(f'{v:+.2f}' for v in within)} within those of "
                f"1, 2, 3 hidden layers{': Simpson’s paradox' if is_flipped else ''}",
                "does not hold" if not is_right else "holds in part" if is_flipped else "holds",
            )
        )
    all_axes[0].set_ylabel("test accuracy, %")
    all_axes[0].legend()
    save(figure, "digits_nets")
    return claims
