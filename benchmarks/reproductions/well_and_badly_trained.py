"""rand_distance of well and badly trained networks, and of those that have learned random labels."""

from __future__ import annotations

import numpy as np
from claims import SEEDS, Claim, plot, save, spread
from nets import adam, train

from lightning_ww import analyze

KINDS = {
    "untrained": {"epochs": 0},
    "badly trained (1 epoch)": {"epochs": 1},
    "well trained (30 epochs)": {"epochs": 30},
    "random labels (150 epochs)": {"epochs": 150, "noise": 1.0},
}


def reproduce() -> list[Claim]:
    """Train the four kinds."""
    found = {}
    for kind, options in KINDS.items():
        rows = []
        for seed in range(SEEDS):
            run = train(seed, optimizer=adam, **options)  # type: ignore[arg-type]
            report = analyze(run.network, initial=run.initial)
            moved = np.mean([layer.distance_from_init_relative for layer in report.layers])
            rows.append((report.summary["rand_distance"], report["2"].alpha, moved, run.train, run.test))
        found[kind] = np.array(rows, dtype=float)
    figure, axes = plot.subplots(figsize=(6, 3.4))
    for kind, points in found.items():
        axes.plot(points[:, 0], 100 * points[:, 4], "o", label=kind)
    axes.set_xlabel("mean rand_distance")
    axes.set_ylabel("test accuracy, %")
    axes.legend()
    save(figure, "well_and_badly_trained")
    none, bad, well, random = found.values()
    return [
        Claim(
            "A well trained network is farther from random than a badly trained one (the WeightWatcher blog).",
            "a larger mean rand_distance",
            f"untrained {spread(none[:, 0], 3)}, badly {spread(bad[:, 0])}, well {spread(well[:, 0])}",
            "holds" if well[:, 0].min() > bad[:, 0].max() > none[:, 0].max() else "does not hold",
        ),
        Claim(
            "So rand_distance tells good from bad.",
            "less for random labels than for true ones",
            f"random labels {spread(random[:, 0])} (training {100 * random[:, 3].mean():.0f} %, test {100 * random[:, 4].mean():.0f} %), "
            f"true ones {spread(well[:, 0])} (test {100 * well[:, 4].mean():.0f} %)",
            "does not hold"
            if random[:, 0].max() > well[:, 0].min()
            else "holds in part"
            if random[:, 0].mean() > bad[:, 0].mean()
            else "holds",
        ),
        Claim(
            "Random labels show in alpha.",
            "an alpha outside 2 … 6",
            f"middle layer {spread(random[:, 1])} with random labels, {spread(well[:, 1])} with true ones; distance from init "
            f"{spread(random[:, 2], 1)} against {spread(well[:, 2], 1)} of the initial weight",
            "holds" if not (2 <= random[:, 1].mean() <= 6) and 2 <= well[:, 1].mean() <= 6 else "does not hold",
        ),
    ]
