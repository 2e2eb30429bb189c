"""`analyze` against weightwatcher 0.7.7 and against LAPACK's bare singular values, side by side in one process.

CPU time of one thread; what is compared takes turns, and medians are compared, so that a machine that is busy or drifts
does not decide. Prints a table of ratios beside their targets, and writes it to `benchmarks/weights.md`.
"""

from __future__ import annotations

import os

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"  # before numpy is loaded

import contextlib
import copy
import io
import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import models
import numpy as np
import tables
import torch
from tables import Row
from torch import nn

from lightning_ww import analyze
from lightning_ww.weights import fit_power_law
from lightning_ww.weights.layers import find_layers


def interleaved(rounds: int, **candidates: Callable[[], Any]) -> dict[str, float]:
    """Median CPU seconds of each candidate; they take turns, after one round that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, call in candidates.items():
            began = time.process_time()
            call()
            if turn:
                taken[name].append(time.process_time() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


def weightwatcher_analysis(model: nn.Module, **options: Any) -> Callable[[], Any]:
    """A call of weightwatcher's analysis, silenced."""
    import weightwatcher

    logging.getLogger("weightwatcher").setLevel(logging.ERROR)

    def call() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            weightwatcher.WeightWatcher(model=model).analyze(**options)

    return call


def bare_svdvals(model: nn.Module) -> Callable[[], Any]:
    """LAPACK's singular values of the same matrices in float64, and nothing else."""
    stacks = [layer.read().double().numpy() for layer in find_layers(model)[0]]
    return lambda: [np.linalg.svd(matrix, compute_uv=False) for stack in stacks for matrix in stack]


def ratio(name: str, value: float, target: float, *, at_least: bool) -> Row:
    """One line of the table."""
    holds = value >= target if at_least else value <= target
    return name, f"{value:.2f}×", f"{'≥' if at_least else '≤'} {target:g}×", "yes" if holds else "NO"


def against_weightwatcher(name: str, model: nn.Module, rounds: int, default: float, exact: float | None) -> list[Row]:
    """What weightwatcher's randomize says, and the distances from init besides.

    Traps are counted by the Tracy–Widom law where weightwatcher fits a Marchenko–Pastur law to the shuffle; the last
    row has every column of theirs, both fits among them.
    """
    initial = copy.deepcopy(model)
    taken = interleaved(
        rounds,
        theirs=weightwatcher_analysis(model, randomize=True, detX=True),
        exact=lambda: analyze(model, initial=initial, shuffle="exact"),
        default=lambda: analyze(model, initial=initial),
        their_all=weightwatcher_analysis(model, randomize=True, detX=True, mp_fit=True),
        our_all=lambda: analyze(model, shuffle="exact", mp_fit=True).to_pandas(like="weightwatcher"),
    )
    columns = taken["their_all"] / taken["our_all"]
    rows = [ratio(f"{name}: weightwatcher / default", taken["theirs"] / taken["default"], default, at_least=True)]
    if exact is not None:
        rows.append(ratio(f"{name}: weightwatcher / exact", taken["theirs"] / taken["exact"], exact, at_least=True))
    rows.append((f"{name}: weightwatcher with mp_fit / every column of it", f"{columns:.2f}×", "–", "–"))
    return rows


def against_lapack(name: str, model: nn.Module, rounds: int) -> list[Row]:
    """The whole analysis over one bare decomposition of each matrix."""
    initial = copy.deepcopy(model)
    taken = interleaved(
        rounds,
        bare=bare_svdvals(model),
        exact=lambda: analyze(model, initial=initial, shuffle="exact"),
        default=lambda: analyze(model, initial=initial),
        everything=lambda: analyze(model, initial=initial, mp_fit=True, cka=True, floor=True),
    )
    bare = taken["bare"]
    return [
        ratio(f"{name}: exact / bare svdvals", taken["exact"] / bare, 1.35, at_least=False),
        ratio(f"{name}: default / bare svdvals", taken["default"] / bare, 0.95, at_least=False),
        (f"{name}: with everything / bare svdvals", f"{taken['everything'] / bare:.2f}×", "–", "–"),
    ]


def power_law_fits(rounds: int) -> list[Row]:
    """The fit alone, on spectra of trained-like matrices."""
    from weightwatcher.WW_powerlaw import WWFit

    rows = []
    for n in (512, 1024, 2048):
        generator = np.random.default_rng(n)
        left, right = generator.standard_normal((n, n // 4)), generator.standard_normal((n // 4, n))
        matrix = generator.standard_normal((n, n)) + left @ (np.arange(1, n // 4 + 1)[:, None] ** -0.8 * right)
        eigenvalues = np.sort(np.linalg.eigvalsh(matrix.T @ matrix))
        eigenvalues = eigenvalues[eigenvalues > 1e-5]  # theirs leaves the others out before it fits

        def theirs(x: Any = eigenvalues) -> Any:
            with contextlib.redirect_stdout(io.StringIO()):
                return WWFit(x)

        def ours(x: Any = eigenvalues) -> Any:
            return [fit_power_law(x) for _ in range(20)]

        taken = interleaved(rounds, theirs=theirs, ours=ours)
        rows.append(
            ratio(
                f"power-law fit, n = {n}: weightwatcher / ours", 20 * taken["theirs"] / taken["ours"], 20, at_least=True
            )
        )
        mine, reference = fit_power_law(eigenvalues), theirs()
        pairs = (
            (mine.alpha, reference.alpha),
            (mine.xmin, reference.xmin),
            (mine.ks_distance, reference.D),
        )
        difference = max(abs(float(a) / float(b) - 1) for a, b in pairs)
        rows.append(
            (
                f"power-law fit, n = {n}: largest difference of alpha, xmin, D",
                f"{difference:.0e}",
                "≤ 1e-09",
                "yes" if difference <= 1e-9 else "NO",
            )
        )
    return rows


def fixed_cost(rounds: int) -> list[Row]:
    """What a layer costs that has hardly anything to decompose."""
    model = models.tiny()
    initial = copy.deepcopy(model)
    taken = interleaved(rounds, ours=lambda: analyze(model, initial=initial))
    cost = 1e3 * taken["ours"] / 100
    return [("a 16 × 16 layer, all told", f"{cost:.2f} ms", "≤ 1 ms", "yes" if cost <= 1 else "NO")]


def main() -> None:
    """Run everything; about three minutes."""
    torch.set_num_threads(1)
    layers = models.brief()
    large = nn.Sequential(layers[0], layers[1], layers[2], layers[4])  # those with M ≥ 256
    rows = [
        *against_weightwatcher("brief (5 layers)", models.brief(), 3, default=25, exact=15),
        *against_weightwatcher("perceptron (12 × 128)", models.perceptron(), 3, default=100, exact=None),
        *against_weightwatcher("resnet20", models.resnet20(), 3, default=100, exact=None),
        *against_lapack("brief, M ≥ 256", large, 5),
        *against_lapack("transformer (M = 256)", models.transformer(), 5),
        *power_law_fits(5),
        *fixed_cost(5),
    ]
    heading = "Ratios of CPU time, one thread\n\nWritten by `make bench`; the script says what is compared."
    tables.conclude(tables.write(__file__, heading, rows), rows)


if __name__ == "__main__":
    main()
