"""Our curvature spectra against PyHessian, curvlinops and hessian-eigenthings, side by side in one process.

CPU time of one thread; what is compared takes turns, and medians are compared. The unit is one gradient, forward and
backward, of the same model on the same batch. Peak memory is counted by torch's profiler. Prints a table of ratios
beside their targets, and writes it to `benchmarks/hessians.md`.
"""

from __future__ import annotations

import os

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"  # before numpy is loaded

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import tables
import torch
import trainable
from cross_library import curvature_peers as peers
from helpers.trained import trained
from tables import Row
from torch import nn
from torch.nn import functional

from lightning_ww.curvature import GGNOperator, HessianOperator, check_second_derivatives, spectral_density
from lightning_ww.curvature.krylov import lanczos

NUM_STEPS = 20
engines: dict[str, str] = {}  # by which Gauss–Newton products are made, by network


def gradient(model: nn.Module, batch: trainable.Batch) -> Callable[[], Any]:
    """The unit: a forward and a backward pass."""
    params = list(model.parameters())
    return lambda: torch.autograd.grad(functional.cross_entropy(model(batch[0]), batch[1]), params)


def ours(
    model: nn.Module, batch: trainable.Batch, matrix: str, num_steps: int = NUM_STEPS, name: str = ""
) -> Callable[[], Any]:
    """A whole spectrum, the operator's making included; ``"ggn, known"`` is a run's later measurement."""
    params = list(model.parameters())

    def call() -> Any:
        if matrix == "hessian":
            operator: Any = HessianOperator(lambda: functional.cross_entropy(model(batch[0]), batch[1]), params)
        else:
            known: dict[str, Any] = {"engine": engines[name], "check": False} if matrix == "ggn, known" else {}
            outputs, judge = (lambda: model(batch[0])), (lambda z: functional.cross_entropy(z, batch[1]))
            operator = GGNOperator(outputs, judge, params, **known)
        density = spectral_density(operator, num_steps=num_steps)
        if matrix == "ggn":
            engines[name] = operator.engine
        return density

    return call


def candidates(name: str, num_steps: int = NUM_STEPS) -> dict[str, Callable[[], Any]]:
    """All that is compared on one network."""
    model, batch = trainable.network(name)
    timed = {
        "gradient": gradient(model, batch),
        "Hessian, ours": ours(model, batch, "hessian", num_steps),
        "Hessian, PyHessian on one batch": peers.pyhessian(model, batch, num_steps),
        "Hessian, PyHessian from a loader": peers.pyhessian(model, batch, num_steps, loader=True),
        "Hessian, curvlinops as documented": peers.curvlinops(model, batch, num_steps),
        "Hessian, hessian-eigenthings": peers.eigenthings(model, batch, num_steps),
        "Gauss–Newton, ours": ours(model, batch, "ggn", num_steps, name),
        "Gauss–Newton, ours again": ours(model, batch, "ggn, known", num_steps, name),
        "Gauss–Newton, curvlinops' Lanczos alone": peers.curvlinops(model, batch, num_steps, "ggn"),
        "Gauss–Newton, hessian-eigenthings": peers.eigenthings(model, batch, num_steps, "ggn"),
    }
    if name == "wide resnet":  # there it takes more than 24 GiB
        del timed["Gauss–Newton, hessian-eigenthings"]
    return timed


def line(what: str, value: float, unit: str = "×", least: float | None = None, most: float | None = None) -> Row:
    """One line of the table."""
    if least is None and most is None:
        return what, f"{value:.3g}{unit}", "–", "–"
    holds = value >= least if least is not None else value <= float(most or 0)
    target = f"≥ {least:g}{unit}" if least is not None else f"≤ {most:g}{unit}"
    return what, f"{value:.3g}{unit}", target, "yes" if holds else "NO"


def spectra(name: str, rounds: int) -> list[Row]:
    """CPU time of a spectrum of twenty steps in gradients, and the peers' over ours."""
    calls = candidates(name)
    taken: dict[str, list[float]] = {label: [] for label in calls}
    for label, call in candidates(name, 3).items():  # what is loaded and compiled at first
        if "curvlinops" not in label:
            call()
    for _ in range(rounds):
        for label, call in calls.items():
            repeats = 5 if label == "gradient" else 1
            began = time.process_time()
            for _ in range(repeats):
                call()
            taken[label].append((time.process_time() - began) / repeats)
    cost = {label: statistics.median(times) for label, times in taken.items()}
    hessian, gauss = cost["Hessian, ours"], cost["Gauss–Newton, ours"]
    rows = [
        line(f"{name}: Hessian, in gradients", hessian / cost["gradient"], "", most=58),
        line(f"{name}: Gauss–Newton, in gradients, first measurement", gauss / cost["gradient"], "", most=36),
        line(
            f"{name}: Gauss–Newton, in gradients, later ones",
            cost["Gauss–Newton, ours again"] / cost["gradient"],
            "",
            most=36,
        ),
    ]
    for label in calls:
        base = hessian if label.startswith("Hessian") else gauss
        least = {"curvlinops": 4.0, "loader": 1.3}
        bound = next((least[key] for key in least if key in label and label.startswith("Hessian")), None)
        if "ours" not in label and label != "gradient":
            rows.append(line(f"{name}: {label} / ours", cost[label] / base, least=bound))
    return rows


def peak_memory(name: str) -> list[Row]:
    """Megabytes of tensors that a spectrum holds at its peak, over what there was before; of torch's allocations."""
    rows = []
    for label, call in candidates(name).items():
        with torch.profiler.profile(profile_memory=True) as profile:
            call()
        assert profile.profiler is not None
        results: Any = profile.profiler.kineto_results
        events = sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda event: event.start_ns())
        peak = max(np.cumsum([event.nbytes() for event in events])) / 2**20
        rows.append(line(f"{name}: peak memory, {label}", float(peak), " MB"))
    return rows


def iteration_alone(rounds: int) -> list[Row]:
    """Lanczos without the products, at a million parameters, in the time of a Hessian's spectrum of the GPT."""
    model, batch = trainable.network("gpt")
    size = 1_000_000
    start, other = torch.randn(2, size)
    taken: dict[str, list[float]] = {"whole": [], "alone": []}
    whole = ours(model, batch, "hessian")
    for turn in range(rounds + 1):
        for label, call in (("whole", whole), ("alone", lambda: lanczos(lambda v: other * v, start, NUM_STEPS))):
            began = time.process_time()
            call()
            if turn:
                taken[label].append(time.process_time() - began)
    share = statistics.median(taken["alone"]) / statistics.median(taken["whole"])
    return [line("Lanczos itself at P = 1 M, of the GPT's spectrum", 100 * share, " %", most=10)]


def same_trace(seeds: int = 32) -> list[Row]:
    """Products for equal accuracy of the trace, against the exact Hessian of a trained net of 2,058 parameters."""
    net = trained(300)
    exact = float(net.values.sum())

    def error(quadrature: Any, num_steps: int) -> float:
        errors = [
            spectral_density(net.dense, num_steps=num_steps, seed=seed, quadrature=quadrature).trace / exact - 1
            for seed in range(seeds)
        ]
        return float(np.sqrt(np.mean(np.square(errors))))

    reduced, plain = error("reduced", 40), error("plain", 40)
    probes = (plain / reduced) ** 2  # plain probes are independent: n of them divide the error by √n
    return [
        line("trace of a trained net, 40 products: error, variance-reduced", 100 * reduced, " %"),
        line("trace of a trained net, 40 products: error, plain", 100 * plain, " %"),
        line("products for the same error, variance-reduced / plain", 1 / probes, "×", most=0.25),
    ]


def steps_and_check(name: str, rounds: int, most: float) -> list[Row]:
    """A Lanczos step of a whole spectrum, and the self-check with two samples in float64, in gradients."""
    model, (x, y) = trainable.network(name)
    params, twin = list(model.parameters()), copy.deepcopy(model).double()
    few = x[:2].double() if x.is_floating_point() else x[:2]

    def loss() -> torch.Tensor:
        return functional.cross_entropy(model(x), y)

    @contextmanager
    def precise() -> Iterator[tuple[Callable[[], torch.Tensor], list[torch.Tensor]]]:
        yield lambda: functional.cross_entropy(twin(few), y[: 2 * (len(y) // len(x))]), list(twin.parameters())

    def check() -> float:
        operator = HessianOperator(loss, params)  # which the spectrum needs anyway
        began = time.process_time()
        check_second_derivatives(loss, params, operator=operator, precise=precise, is_part=True)
        return time.process_time() - began

    def timed(call: Callable[[], Any]) -> float:
        began = time.process_time()
        call()
        return time.process_time() - began

    whole = ours(model, (x, y), "hessian")
    taken = [(timed(gradient(model, (x, y))), timed(whole), check()) for _ in range(rounds + 1)][1:]
    unit, spectrum, checked = (statistics.median(column) for column in zip(*taken, strict=True))
    return [
        line(f"{name}: a step of the Hessian's spectrum, in gradients", spectrum / NUM_STEPS / unit, "", most=most),
        line(f"{name}: the self-check, once in a run, in gradients", checked / unit, "", most=10),
    ]


def main() -> None:
    """Run everything; about a quarter of an hour."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    parts: list[Callable[[], list[Row]]] = [
        same_trace,
        partial(iteration_alone, options.rounds),
        *(partial(steps_and_check, name, options.rounds, most) for name, most in (("gpt", 2.3), ("cnn", 2.2))),
        *(partial(spectra, name, options.rounds) for name in ("gpt", "cnn")),
        *(partial(peak_memory, name) for name in ("gpt", "cnn")),
        partial(spectra, "wide resnet", options.rounds),
    ]
    for part in parts:
        rows += part()
        heading = (
            "Curvature spectra of twenty Lanczos steps\n\nWritten by `make bench`; the script says what is compared. "
            "CPU time, one thread."
        )
        table = tables.write(__file__, heading, rows)
    tables.conclude(table, rows)


if __name__ == "__main__":
    main()
