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
from functools import partial
from typing import Any

import models
import numpy as np
import tables
import torch
from tables import Row
from torch import nn

from lightning_ww import analyze
from lightning_ww.weights import fit_power_law
from lightning_ww.weights.analysis import measure, read
from lightning_ww.weights.ingredients import Request
from lightning_ww.weights.initial import initial_slices
from lightning_ww.weights.kept_shuffle import KeptShuffle
from lightning_ww.weights.layers import find_layers
from lightning_ww.weights.report import WeightReport
from lightning_ww.weights.shuffle import Shuffler
from lightning_ww.weights.shuffled import Shuffle
from lightning_ww.weights.spectrum import singular_values
from lightning_ww.weights.unchanged import Unchanged


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


def a_monitor(model: nn.Module) -> Callable[[bool], WeightReport]:
    """The measurements of a monitor: a call with ``True`` makes the first one, floors included, and else a later one."""
    initial = copy.deepcopy(model)
    kept: dict[str, KeptShuffle] = {}
    shuffler, unchanged = Shuffler(), Unchanged()
    before = initial_slices(find_layers(model)[0], initial)

    def call(is_first: bool) -> WeightReport:
        matrices, skipped = find_layers(model)
        floors = None if is_first else dict.fromkeys((layer.name for layer in matrices), 0.0)
        source = Shuffler() if is_first else shuffler
        request = Request(source, initial=before, floors=floors, kept={} if is_first else kept)
        known = Unchanged() if is_first else unchanged
        report = measure(read(matrices, include_frozen=True, copies=True), skipped, request, unchanged=known)
        kept.update({layer.name: layer.kept_shuffle for layer in report.layers if layer.kept_shuffle is not None})
        return report

    return call


def in_a_run(name: str, model: nn.Module, rounds: int) -> list[Row]:
    """The first and later measurements of a monitor; from one to the next each weight moves by a hundredth of itself."""
    measured, generator = a_monitor(model), torch.Generator().manual_seed(1)
    measured(False)
    models.moved(model, generator)

    def later() -> WeightReport:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 1e-6)  # so that no layer is taken for unchanged
        return measured(False)

    kept = statistics.fmean(layer.shuffle == "kept" for layer in later().layers)
    taken = interleaved(
        rounds,
        theirs=weightwatcher_analysis(model, randomize=True, detX=True),
        first=lambda: measured(True),
        later=later,
    )
    return [
        ratio(f"{name}: weightwatcher / first measurement", taken["theirs"] / taken["first"], 15, at_least=True),
        ratio(f"{name}: weightwatcher / later ones", taken["theirs"] / taken["later"], 25, at_least=True),
        (f"{name}: layers whose shuffle is kept", f"{100 * kept:.0f} %", "–", "–"),
    ]


def against_bare_spectra(rounds: int) -> list[Row]:
    """The whole analysis over bare eigenvalues of Gram matrices: two where a shuffle is decomposed, else one."""
    rows = []
    for N, M in ((256, 256), (512, 512), (1024, 1024), (3072, 768)):
        model = nn.Linear(M, N)  # uniform elements, whose shuffle is predicted
        taken = interleaved(
            rounds,
            bare=partial(singular_values, model.weight.detach().numpy()[None]),
            exact=partial(_analysis, model, copy.deepcopy(model), Shuffler(), "exact"),
            default=partial(_analysis, model, copy.deepcopy(model), Shuffler(), "auto"),
        )
        rows += [
            ratio(f"{N} × {M}: exact / two bare spectra", taken["exact"] / taken["bare"] / 2, 1.12, at_least=False),
            ratio(f"{N} × {M}: predicted / one bare spectrum", taken["default"] / taken["bare"], 1.15, at_least=False),
        ]
    return rows


def _analysis(model: nn.Module, initial: nn.Module, shuffler: Shuffler, how: Shuffle) -> WeightReport:
    """What `analyze` finds, with a source of permutations that has them ready."""
    matrices, skipped = find_layers(model)
    request = Request(shuffler, how, initial_slices(matrices, initial))
    return measure(read(matrices, include_frozen=True), skipped, request)


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
    rows = []
    for order, number, target in ((16, 100, 1.0), (64, 50, 0.35)):
        model = models.tiny(order, number)
        initial = copy.deepcopy(model)
        taken = interleaved(rounds, ours=partial(analyze, model, initial=initial))
        cost = 1e3 * taken["ours"] / number
        name = f"a {order} × {order} layer of {number}, all told"
        rows.append((name, f"{cost:.2f} ms", f"≤ {target:g} ms", "yes" if cost <= target else "NO"))
    return rows


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
        *in_a_run("ResNet-18, Student-t 4.5", models.resnet18(), 1),
        *in_a_run("block of ViT-S, Student-t 4.5", models.block(384), 3),
        *in_a_run("block of GPT-2 small, Student-t 4.5", models.block(768), 1),
        *against_bare_spectra(7),
        *power_law_fits(5),
        *fixed_cost(5),
    ]
    heading = "Ratios of CPU time, one thread\n\nWritten by `make bench`; the script says what is compared."
    tables.conclude(tables.write(__file__, heading, rows), rows)


if __name__ == "__main__":
    main()
