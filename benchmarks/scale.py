"""What monitors cost in large networks: against width, layers, processes, Lanczos steps and parameters.

CPU time of one thread. Each matrix is measured in a process of its own, whose peak memory is read from Linux. Writes
`docs/scale.md` with its picture, and what a model of seven billion parameters takes, from its own matrices. About 20 minutes.
"""

from __future__ import annotations

import os

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"  # before numpy is loaded

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import nn
from torch.nn import functional
from weights import a_monitor

from lightning_ww.callbacks._monitor.ranks import owners
from lightning_ww.callbacks._weights.snapshot import work
from lightning_ww.curvature import HessianOperator, spectral_density
from lightning_ww.drawing.canvas import BLUE, GRAY, ORANGE, new_figure
from lightning_ww.weights.analysis import read
from lightning_ww.weights.layers import find_layers
from lightning_ww.weights.slices import Weight

DOCS = Path(__file__).parents[1] / "docs"

WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
LAYERS = (10, 40, 160)
STEPS = (5, 10, 20, 40, 80)
HIDDEN = (32, 128, 512, 2048)
PROCESSES = (1, 2, 4, 8)

SEVEN_BILLION = {(4096, 4096): 4 * 32, (11008, 4096): 3 * 32, (32000, 4096): 2}
"""The matrices of a transformer of seven billion parameters (32 blocks of width 4096), with their numbers."""

KINDS = {
    "first": "first measurement: shuffle and floor drawn",
    "drawn": "later, shuffle drawn anew",
    "kept": "later, shuffle kept",
    "predicted": "later, shuffle predicted",
}

Costs = dict[str, Any]
"""Seconds, and peak memory over the weight's own, by kind."""


def cpu_seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    """Median CPU seconds of calls."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def peak(call: Callable[[], Any]) -> int:
    """The bytes by which this process grows while a function runs."""
    Path("/proc/self/clear_refs").write_text("5")  # begin to count anew
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    call()
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1]) - before


def matrix_in_this_process(rows: int, cols: int) -> dict[str, Costs]:
    """The costs of one matrix."""
    random = np.random.default_rng(0)
    found = {}
    for kinds, draw in (
        (("first", "kept", "drawn"), partial(random.standard_t, 4.5)),
        (("predicted",), random.standard_normal),
    ):
        model = nn.Linear(cols, rows, bias=False)
        with torch.no_grad():
            for start in range(0, rows, 1024):
                some = model.weight[start : start + 1024]
                some.copy_(torch.from_numpy(draw(size=some.shape)))
        measured = a_monitor(model)
        warm = a_monitor(nn.Linear(300, 300))
        for is_first in (True, False):
            warm(is_first)
        if kinds == ("predicted",):
            measured(True)
        for kind in kinds:
            with torch.no_grad():
                model.weight.mul_(1.001)  # so that it is not taken for unchanged
                if kind == "drawn":  # other elements than those of the kept shuffle
                    model.weight.copy_(model.weight.abs().pow(1.3) * model.weight.sign())
            seconds: list[float] = []
            grown = peak(partial(_timed, partial(measured, kind == "first"), seconds))
            found[kind] = {"seconds": seconds[0], "memory": grown / (4 * rows * cols)}
    return found


def _timed(call: Callable[[], Any], seconds: list[float]) -> None:
    seconds.append(cpu_seconds(call))


def matrix(rows: int, cols: int) -> dict[str, Costs]:
    """The costs of one matrix, in a new process."""
    command = [sys.executable, __file__, "--matrix", str(rows), str(cols)]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]))


def of_layers() -> dict[int, dict[int, float]]:
    """Seconds of a later measurement, by width and number of layers."""
    found: dict[int, dict[int, float]] = {}
    for width in (64, 256):
        for number in LAYERS:
            model = nn.Sequential(*(nn.Linear(width, width) for _ in range(number)))
            measured = a_monitor(model)
            measured(True)

            def call(model: nn.Module = model, measured: Any = measured) -> None:
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.mul_(1 + 1e-6)
                measured(False)

            found.setdefault(width, {})[number] = cpu_seconds(call, 3)
    return found


def of_processes() -> dict[int, float]:
    """The time of the slowest process over an equal share of the whole, in a transformer of 24 blocks."""
    shapes = [(768, 256), (256, 256), (1024, 256), (256, 1024)] * 24
    model = nn.Sequential(nn.Embedding(512, 256), *(nn.Linear(b, a) for a, b in shapes))
    works = [work(weight) for weight in read(find_layers(model)[0], include_frozen=True)]
    times = []
    for layer in model:
        measured = a_monitor(layer)
        measured(True)

        def call(layer: nn.Module = layer, measured: Any = measured) -> None:
            with torch.no_grad():
                next(layer.parameters()).mul_(1 + 1e-6)
            measured(False)

        times.append(cpu_seconds(call, 3))
    return {number: _slowest(times, owners(works, number), number) / sum(times) * number for number in PROCESSES}


def _slowest(times: Sequence[float], owned: Sequence[int], number: int) -> float:
    return max(sum(t for t, owner in zip(times, owned, strict=True) if owner == rank) for rank in range(number))


def curvature(hidden: int, num_steps: int) -> tuple[int, float]:
    """Parameters of a perceptron, and the time of a spectrum in gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 10))
    inputs, labels, params = torch.randn(256, 64), torch.randint(10, (256,)), list(model.parameters())

    def loss() -> torch.Tensor:
        return functional.cross_entropy(model(inputs), labels)

    gradient = cpu_seconds(lambda: [torch.autograd.grad(loss(), params) for _ in range(5)], 5) / 5
    spectrum = cpu_seconds(lambda: spectral_density(HessianOperator(loss, params), num_steps=num_steps), 3)
    return sum(parameter.numel() for parameter in params), spectrum / gradient


def plan(costs: dict[tuple[int, int], dict[str, Costs]]) -> str:
    """What the model of seven billion parameters takes on several GPUs, each process with one core of its own."""
    shapes = [shape for shape, number in SEVEN_BILLION.items() for _ in range(number)]
    sizes = [2 * rows * cols for rows, cols in shapes]  # in 16 bits
    rows = []
    for ranks in (1, 8, 64):
        owned = owners([_work_of(*shape) for shape in shapes], ranks)
        per_kind = {kind: _slowest([costs[shape][kind]["seconds"] for shape in shapes], owned, ranks) for kind in KINDS}
        held = _slowest(sizes, owned, ranks)
        working = max(4 * a * b * costs[a, b]["first"]["memory"] for a, b in SEVEN_BILLION)
        rows.append(
            [
                ranks,
                max(owned.count(rank) for rank in range(ranks)),
                *(f"{per_kind[kind]:.0f} s" for kind in ("first", "drawn", "kept")),
                f"{sum(sizes) * (1 - 1 / ranks) / 1e9:.1f} GB",
                f"{held / 1e9:.2f} + {working / 1e9:.1f} GB",
            ]
        )
    headers = ["processes", "matrices", "first", "later, drawn", "later, kept", "received", "host memory"]
    return str(tabulate(rows, headers, tablefmt="github"))


def _work_of(rows: int, cols: int) -> float:
    outline = torch.zeros(1).expand(1, rows, cols)
    return work(Weight("", "Linear", False, False, False, outline))


def draw(
    widths: dict[int, dict[str, Costs]],
    layers: dict[int, dict[int, float]],
    steps: Sequence[float],
    params: Sequence[tuple[int, float]],
) -> None:
    """Draw the four curves."""
    figure = new_figure(11, 7, "constrained")
    axes = figure.subplots(2, 2)
    for kind, color in zip(("first", "drawn", "kept"), (GRAY, ORANGE, BLUE), strict=True):
        axes[0, 0].loglog(WIDTHS, [widths[w][kind]["seconds"] for w in WIDTHS], "o-", color=color, label=KINDS[kind])
    axes[0, 0].set(title="A square matrix", xlabel="width", ylabel="CPU seconds")
    for width, color in ((64, BLUE), (256, ORANGE)):
        axes[0, 1].loglog(LAYERS, [layers[width][n] for n in LAYERS], "o-", color=color, label=f"{width} × {width}")
    axes[0, 1].set(title="A network of such layers, later measurement", xlabel="layers", ylabel="CPU seconds")
    axes[1, 0].plot(STEPS, steps, "o-", color=BLUE, label="whole spectrum, 0.3 million parameters")
    axes[1, 0].set(title="Curvature against Lanczos steps", xlabel="steps", ylabel="gradients of the same batch")
    axes[1, 1].semilogx([n for n, _ in params], [g for _, g in params], "o-", color=BLUE, label="20 steps")
    axes[1, 1].set(title="Curvature against parameters", xlabel="parameters", ylabel="gradients of the same batch")
    axes[1, 1].set_ylim(bottom=0)
    for axis in axes.flat:
        axis.legend(frameon=False)
        axis.grid(alpha=0.3)
    (DOCS / "images").mkdir(exist_ok=True)
    figure.savefig(DOCS / "images" / "scale.png")


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--matrix", nargs=2, type=int, metavar=("ROWS", "COLS"), help="print the costs of one matrix")
    only = parser.parse_args().matrix
    torch.set_num_threads(1)
    if only:
        print(json.dumps(matrix_in_this_process(*only)))
        return
    widths = {width: matrix(width, width) for width in WIDTHS}
    layers, shares = of_layers(), of_processes()
    steps = [curvature(512, number)[1] for number in STEPS]
    params = [curvature(hidden, 20) for hidden in HIDDEN]
    draw(widths, layers, steps, params)
    seven = {shape: widths.get(shape[0]) if shape[0] == shape[1] else matrix(*shape) for shape in SEVEN_BILLION}
    costs = {shape: found for shape, found in seven.items() if found is not None}
    of_width = [
        [f"{w} × {w}", *(_cost(widths[w][k], shows_memory=w >= 1024) for k in KINDS)]
        for w in WIDTHS  # memory of small ones is lost in what the process has at hand
    ]
    of_shape = [[f"{a} × {b}", n, *(_cost(costs[a, b][k]) for k in KINDS)] for (a, b), n in SEVEN_BILLION.items()]
    heads = list(KINDS.values())
    text = TEXT.format(
        widths=tabulate(of_width, ["matrix", *heads], tablefmt="github"),
        shares=tabulate([[f"{share:.2f}" for share in shares.values()]], [str(n) for n in shares], tablefmt="github"),
        shapes=tabulate(of_shape, ["matrix", "number", *heads], tablefmt="github"),
        plan=plan(costs),
        steps=", ".join(f"{s:.0f} at {n}" for n, s in zip(STEPS, steps, strict=True)),
        params=", ".join(f"{g:.0f} at {n:,}" for n, g in params),
    )
    (DOCS / "scale.md").write_text(text)
    print(text)


def _cost(cost: Costs, *, shows_memory: bool = True) -> str:
    return f"{cost['seconds']:.3g} s" + (f", {cost['memory']:.1f} ×" if shows_memory else "")


TEXT = """# What it costs in large networks

Written by `make scale`: CPU time of one thread. Seconds differ from machine to machine; their ratios hardly do.

![Cost against width, layers, Lanczos steps and parameters](images/scale.png)

## Weights: one matrix

CPU seconds, and peak memory in units of the weight in 32 bits (the copy that the monitor measures is counted). The
elements are heavy-tailed (Student's t, 4.5 degrees of freedom), so that shuffles have to be drawn; in the last column they
are normal.

{widths}

The time grows with the cube of the short side, since all eigenvalues are computed. Above a short side of 8192 only the
largest singular value and the norms are, and the report says `approximate`.

## Weights: several processes

A transformer of 24 blocks of width 256, its layers shared out by their shapes: the time of the slowest process over an
equal share, by the number of processes (each layer's time is measured, and summed for its owner).

{shares}

## Curvature

A spectrum of a perceptron with a batch of 256, in gradients of the same batch. At 0.3 million parameters, by steps:
{steps}. With 20 steps, by parameters: {params}. Beside the products, each step keeps a
vector of the size of the parameters (`storage=`).

## A model of seven billion parameters

32 blocks of width 4096, in 16 bits. Its matrices, measured as above:

{shapes}

Shared out over processes with one core each. *Received*: bytes that pass through each process in a measurement, since a
sharded matrix is gathered on all of them, one at a time. *Host memory*: the copies of a process's own matrices, and the
working memory of the largest. The time is that of the slowest process; under `execution="background"` training goes on
meanwhile.

{plan}

No GPU was at hand: everything is decomposed on the host's cores.
"""


if __name__ == "__main__":
    main()
