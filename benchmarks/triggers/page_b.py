"""The part of the page on suite B."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import declared
import numpy as np
from pictures import plot, save
from scoring import first_above, first_stop
from tabulate import tabulate

Run = dict[str, Any]
BOTH = ("rank_collapse", "correlation_trap")


def fifth_rise(series: Sequence[float]) -> int | None:
    """The epoch, from 1, of the declared number of rises in all, whether in a row or not."""
    rises = np.flatnonzero(np.diff(series) > 0)
    return int(rises[declared.DISPARITY_RISES - 1]) + 2 if rises.size >= declared.DISPARITY_RISES else None


def label_wave(changes: Sequence[float]) -> int | None:
    """The epoch of the first minimum of the moving average of prediction changes, and None if there is none."""
    mean = np.convolve(changes, np.ones(declared.WAVE) / declared.WAVE, "valid").tolist()
    least = 0
    for i in range(1, len(mean)):
        if mean[i] < mean[least]:
            least = i
        elif i - least >= declared.WAVE:
            return int(least) + declared.WAVE
    return None


def validation_stop(losses: Sequence[float], patience: int = declared.VALIDATION_PATIENCE) -> tuple[int, int]:
    """The epoch of the least validation loss, from 1, and the one at which patience ends."""
    best = 1
    for epoch, loss in enumerate(losses, start=1):
        if loss < losses[best - 1]:
            best = epoch
        elif epoch - best >= patience:
            return best, epoch
    return best, len(losses)


def stops_of(run: Run) -> dict[str, tuple[float, int]]:
    """The test accuracy that each rule ends with, and the epochs that it trained."""
    test, longest = run["test"], len(run["test"])
    flags = {name: [name in now for now in run["fired"]] for name in ("plateau", "over_trained", *BOTH)}
    both = [a and b for a, b in zip(flags["over_trained"], flags["correlation_trap"], strict=True)]
    settled = [a and b for a, b in zip(flags["plateau"], flags["over_trained"], strict=True)]
    rules: dict[str, int | None] = {
        f"fixed, {declared.FIXED} epochs": declared.FIXED,
        "to the end": None,
        "gradient disparity": fifth_rise(run["disparity"]),
        "gradient disparity, losses over their spread": fifth_rise(run["rescaled disparity"]),
        "evidence criterion": first_above(np.array(run["evidence"]), 0.0),
        "Label Wave": label_wave(run["changes"]),
        "`plateau`": first_stop(flags["plateau"], declared.PATIENCE),
        "`over_trained`": first_stop(flags["over_trained"], declared.PATIENCE),
        "`over_trained` and `correlation_trap`": first_stop(both, declared.PATIENCE),
        "`plateau` and `over_trained`": first_stop(settled, declared.PATIENCE),
        "`rank_collapse` or `correlation_trap`": min(
            (s for name in BOTH if (s := first_stop(flags[name], declared.PATIENCE)) is not None), default=None
        ),
    }
    found = {"oracle": (max(test), int(np.argmax(test)) + 1)}
    for rule, epoch in rules.items():
        at = longest if epoch is None else min(epoch, longest)
        later = declared.WAVE if rule == "Label Wave" else 0  # epochs in which a minimum is seen to be one
        found[rule] = (test[at - 1], min(at + later, longest))
    for share, seen in run["validated"].items():
        best, trained = validation_stop(seen["loss"])
        found[f"validation loss, {100 * float(share):.0f} % held out"] = (seen["test"][best - 1], trained)
    return found


def suite_b(runs: list[Run]) -> str:
    """The tables of suite B."""
    table = table_of_rules(runs)
    draw_b([run for run in runs if run["source"] == "digits"])
    return "\n\n".join(
        [
            "## B. When to stop?",
            f"{len(runs)} runs of {declared.LONGEST} epochs: digits with n of {declared.SIZES}, and wine and breast cancer, which no "
            f"rule was chosen on; labels drawn anew with a share of {declared.NOISE}; SGD, Adam, AdamW; {declared.SEEDS} seeds. Regret: "
            "points of test accuracy below the best epoch of the run on all data, the oracle's; mean ± standard error over the means of each seed. Rules "
            "without "
            "validation data train on all of it. Saved: the share of the epochs that were not trained.",
            table,
            "![Regret against label noise](images/triggers_b.png)",
            "*Regret on digits, by the share of labels drawn anew.*",
        ]
    )


def table_of_rules(runs: list[Run]) -> str:
    """Regret and epochs saved of each rule, by data."""
    groups: dict[str, list[tuple[int, dict[str, tuple[float, int]]]]] = defaultdict(list)
    for run in runs:
        clean = "clean" if run["noise"] == 0 else "noisy"
        groups[f"digits, {clean}" if run["source"] == "digits" else "wine, breast cancer"].append(
            (run["seed"], stops_of(run))
        )
    rows = []
    everything = [one for some in groups.values() for _, one in some]
    for rule in everything[0]:
        cells = []
        for name in ("digits, clean", "digits, noisy", "wine, breast cancer"):
            by_seed: dict[int, list[float]] = defaultdict(list)
            for seed, one in groups[name]:
                by_seed[seed].append(100 * (one["oracle"][0] - one[rule][0]))
            means = np.array([np.mean(regrets) for regrets in by_seed.values()])
            error = means.std(ddof=1) / means.size**0.5 if means.size > 1 else float("nan")
            cells.append(f"{means.mean():.1f} ± {error:.1f}")
        saved = np.mean([1 - one[rule][1] / declared.LONGEST for one in everything])
        rows.append((rule, *cells, f"{100 * saved:.0f} %"))
    heads = ("rule", "digits, right labels", "digits, wrong labels", "wine, breast cancer", "saved")
    return tabulate(rows, heads, "github", disable_numparse=True)


def draw_b(runs: list[Run]) -> None:
    """The picture of suite B."""
    stops = [(run["noise"], stops_of(run)) for run in runs]
    lines: dict[tuple[float, ...], list[str]] = {}
    for rule in stops[0][1]:
        if rule != "oracle" and "10 %" not in rule and "30 %" not in rule:
            means = [
                np.mean([100 * (s["oracle"][0] - s[rule][0]) for noise, s in stops if noise == at])
                for at in declared.NOISE
            ]
            lines.setdefault(tuple(round(float(mean), 1) for mean in means), []).append(rule.replace("`", ""))
    figure, axes = plot.subplots(figsize=(8, 5))
    for curve, rules in lines.items():
        axes.plot(declared.NOISE, curve, "--" if len(rules) == 1 else "-", marker="o", label="\n".join(rules))
    axes.set_xlabel("share of labels drawn anew")
    axes.set_ylabel("points of test accuracy below the oracle")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.2)
    save(figure, "triggers_b.png")
