"""What `GradientMonitor` adds to a step: the part at each step, and a report, in CPU time, against the step itself.

A GPT with three million parameters at batches of 8 × 128 tokens, and a perceptron at batches of 32; one thread, interleaved,
medians.
Writes `benchmarks/gradients.md`.
"""

from __future__ import annotations

import itertools
import os

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"  # before numpy is loaded

import time
from collections.abc import Callable
from statistics import median

import tables
import torch
from tables import Row
from torch import nn
from torch.nn import functional
from trainable import GPT

from lightning_ww.gradients import GradientReader
from lightning_ww.gradients.layers import layers_of

ROUNDS = 40
TARGET = 0.01
"""Of a step, for the part that is done at each one."""


def seconds(action: Callable[[], object]) -> float:
    """The CPU time of an action."""
    began = time.process_time()
    action()
    return time.process_time() - began


def measured(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """The medians of a step, of what is done at each, and of what a report adds."""
    optimizer = torch.optim.Adam(network.parameters())
    reader = GradientReader(*layers_of(network))
    parameters, number = list(network.parameters()), itertools.count()

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(network(x), y.flatten()))
        optimizer.step()

    actions: dict[str, Callable[[], object]] = {
        "step": step,
        "each": lambda: reader.observe(parameters, step=next(number)),
        "closely": lambda: reader.observe(parameters, step=next(number), closely=True),
        "update": lambda: reader.finish(parameters),
        "report": reader.collect,
    }
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(ROUNDS):
        for name, action in actions.items():
            times[name].append(seconds(action))
    return {name: median(some[2:]) for name, some in times.items()}


def main() -> None:
    """Measure, and write the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gpt = GPT(vocabulary=2048, width=256, depth=3)
    few = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    runs = {
        "GPT, 3 million parameters, 8 × 128 tokens": (gpt, *torch.randint(2048, (2, 8, 128))),
        "perceptron, 26,000 parameters, 32 samples": (few, torch.randn(32, 64), torch.randint(10, (32,))),
    }
    rows: list[Row] = []
    for name, (network, x, y) in runs.items():
        found = measured(network, x, y)
        share = found["each"] / found["step"]
        is_asked = name.startswith("GPT")
        verdict = ("yes" if share <= TARGET else "NO") if is_asked else "–"
        rows.append(
            (f"{name}: part at each step / step", f"{100 * share:.2f} %", "≤ 1 %" if is_asked else "–", verdict)
        )
        more = (found["closely"] + found["update"] + found["report"]) / found["step"]
        rows.append((f"{name}: a report, once an epoch / step", f"{100 * more:.1f} %", "–", "–"))
    table = tables.write(__file__, "What gradients cost", rows)
    tables.conclude(table, rows)


if __name__ == "__main__":
    main()
