"""A measurement as users run it: no thread variable set, and all cores kept busy by other processes.

Ours against numpy's eigenvalues of the same Gram matrices, which take all cores; wall time and CPU time, in turns, medians.
Writes `benchmarks/threads.md`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tables
from tables import Row
from torch import nn

from lightning_ww import analyze
from lightning_ww.weights.layers import find_layers

ROUNDS = 5


@contextmanager
def busy_cores() -> Iterator[None]:
    """Keep each core busy with another process."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()


def times(candidates: dict[str, Callable[[], Any]]) -> dict[str, tuple[float, float]]:
    """Median wall and CPU seconds of each; they take turns, after one round that is not counted."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for turn in range(ROUNDS + 1):
        for name, call in candidates.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            if turn:
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (statistics.median(w for w, _ in some), statistics.median(c for _, c in some))
        for name, some in taken.items()
    }


def rows(count: int, order: int) -> list[Row]:
    """Ours over numpy's, and ours with busy cores over ours with idle ones."""
    model = nn.Sequential(*(nn.Linear(order, order) for _ in range(count)))
    matrices = [layer.read()[0].double().numpy() for layer in find_layers(model)[0]]
    candidates: dict[str, Callable[[], Any]] = {
        "ours": lambda: analyze(model, shuffle="exact"),
        "numpy": lambda: [np.linalg.eigvalsh(matrix.T @ matrix) for matrix in matrices for _ in range(2)],
    }
    idle = times(candidates)
    with busy_cores():
        busy = times(candidates)
    name = f"{count} × {order}²"
    cpu = busy["ours"][1] / idle["ours"][1]
    return [
        (f"{name}: busy / idle cores, CPU time", f"{cpu:.2f}×", "≤ 1.5×", "yes" if cpu <= 1.5 else "NO"),
        (f"{name}: busy / idle cores, wall time", f"{busy['ours'][0] / idle['ours'][0]:.2f}×", "–", "–"),
        (
            f"{name}: numpy's two spectra / ours, busy cores, wall time",
            f"{busy['numpy'][0] / busy['ours'][0]:.3g}×",
            "–",
            "–",
        ),
        (
            f"{name}: numpy's two spectra / ours, busy cores, CPU time",
            f"{busy['numpy'][1] / busy['ours'][1]:.3g}×",
            "–",
            "–",
        ),
    ]


def main() -> None:
    """Run everything; about two minutes."""
    for library in ("OMP", "OPENBLAS", "MKL"):
        if f"{library}_NUM_THREADS" in os.environ:
            sys.exit(f"{library}_NUM_THREADS is set: this shows what happens where it is not.")
    found = [row for shape in ((4, 256), (1, 512), (2, 1024)) for row in rows(*shape)]
    heading = "Threads, as users run it\n\nWritten by `make bench`; the script says what is compared."
    tables.conclude(tables.write(__file__, heading, found), found)


if __name__ == "__main__":
    main()
