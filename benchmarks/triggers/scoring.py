"""How a signal is scored: when a run failed, when an alarm came, rates with intervals, and areas under curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import declared
import numpy as np

Z = NormalDist().inv_cdf(0.975)
Series = Sequence[float]
Run = Mapping[str, Any]


def failed_at(accuracies: Series, chance: float, since: int = 0) -> int | None:
    """The epoch, from 1, at which a run failed, or ``None``; falls before the epoch ``since``, from 0, do not count."""
    if max(accuracies[: declared.NEVER_LEARNED]) < chance + declared.FALL:
        return declared.NEVER_LEARNED
    for epoch in range(max(1, since), len(accuracies) - 1):
        limit = max(accuracies[:epoch]) - declared.FALL
        if accuracies[epoch] <= limit and accuracies[epoch + 1] <= limit:
            return epoch + 1
    return None


def alarm(fired: Sequence[Sequence[str]], *names: str, patience: int = declared.PATIENCE) -> int | None:
    """The epoch, from 1, at which `SpectralEarlyStopping` would stop on any of these triggers, or ``None``."""
    stops: list[int | None] = []
    for name in names:
        flags = [name in now for now in fired]
        if name == "nonfinite" and any(flags):
            stops.append(flags.index(True) + 1)
        else:
            stops.append(first_stop(flags, patience))
    return min((at for at in stops if at is not None), default=None)


def first_stop(flags: Sequence[bool], patience: int) -> int | None:
    """The epoch, from 1, of the patience-th flag in a row from the fifth epoch on."""
    count = 0
    for epoch, now in enumerate(flags, start=1):
        count = count + 1 if now else 0
        if count >= patience and epoch >= declared.MIN_EPOCHS:
            return epoch
    return None


def interval(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate."""
    if not n:
        return float("nan"), float("nan")
    share, z2 = hits / n, Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * (share * (1 - share) / n + z2 / (4 * n**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def rate(hits: int, n: int) -> str:
    """A rate with its interval, in words: ``3 of 80 (1–10 %)``."""
    if not n:
        return "–"
    low, high = interval(hits, n)
    return f"{hits} of {n} ({100 * low:.0f}–{100 * high:.0f} %)"


def median(values: Sequence[float]) -> str:
    """The median, in words."""
    return f"{np.median(values):.0f}" if values else "–"


def wins(positive: Series, negative: Sequence[Series]) -> np.ndarray:
    """Whether each failing run has a higher score than each healthy one: 1, 0, or a half where they are equal.

    ``negative`` holds a row for each failing run: the scores of the healthy runs when looked at for as long.
    """
    mine, theirs = np.array(finite(positive))[:, None], np.array([finite(row) for row in negative])
    return np.asarray(np.where(mine == theirs, 0.5, mine > theirs))


def area(won: np.ndarray) -> float:
    """The area under the curve: the chance that a failing run has a higher score than a healthy one."""
    return float(won.mean())


def area_interval(won: np.ndarray, draws: int = 500) -> tuple[float, float]:
    """Its 95 % interval, by the bootstrap over runs."""
    random = np.random.default_rng(0)
    rows, columns = won.shape
    areas = [won[random.choice(rows, rows)][:, random.choice(columns, columns)].mean() for _ in range(draws)]
    return float(np.quantile(areas, 0.025)), float(np.quantile(areas, 0.975))


def finite(values: Series) -> list[float]:
    """Scores without NaN (no alarm) and without infinities."""
    return [float(v) for v in np.nan_to_num(np.asarray(values, dtype=float), nan=-1e300, posinf=1e300, neginf=-1e300)]


# ── Raw signals: how a metric becomes a score that is high in trouble

SMALLEST = 1e-12
"""What stands for zero where logarithms are taken."""

VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "high": lambda x: x,
    "low": lambda x: -x,
    "rise since epoch 1": lambda x: x - x[0],
    "fall since epoch 1": lambda x: x[0] - x,
    "change within 3 epochs": lambda x: np.array(
        [np.ptp(x[max(0, i - declared.WINDOW) : i + 1]) for i in range(len(x))]
    ),
}


def views(series: Mapping[str, Sequence[float]], *, is_log: bool = False) -> dict[str, np.ndarray]:
    """Each view of each part (least, mean and largest over layers) of a metric or its logarithm, by name."""
    found: dict[str, np.ndarray] = {}
    for part, values in series.items():
        x = np.asarray(values, dtype=float)
        if is_log:
            x = np.log(np.where(x > 0, x, SMALLEST))  # NaN, no value, is no positive number either
            x[np.isnan(np.asarray(values, dtype=float))] = np.nan
        with np.errstate(invalid="ignore"):
            found |= {f"{part}, {name}".strip(", "): view(x) for name, view in VIEWS.items()}
    return found


def highest(scores: np.ndarray, until: int | None) -> float:
    """The highest score before the epoch ``until``, from 1; of the whole run if that is ``None``."""
    seen = scores if until is None else scores[: max(1, until - 1)]
    return float(np.nanmax(seen)) if np.isfinite(seen).any() else float("-inf")


def first_above(scores: np.ndarray, threshold: float) -> int | None:
    """The first epoch, from 1, with a score above a threshold."""
    above = np.flatnonzero(np.nan_to_num(scores, nan=-np.inf) > threshold)
    return int(above[0]) + 1 if above.size else None


def threshold_of(healthy: Series) -> float:
    """The least threshold at which at most the declared share of these healthy runs has an alarm."""
    ordered = sorted(finite(healthy))
    allowed = int(declared.FALSE_ALARM_RATE * len(ordered))
    return ordered[len(ordered) - 1 - allowed]
