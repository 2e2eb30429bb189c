"""What drawing costs at one measurement, in parts of the second that it may take: CPU time of one thread, medians.

A full history of a thousand measurements, five metrics, three layers' spectra; the pictures are encoded as TensorBoard
gets them. Prints a table, and writes it to `benchmarks/panels.md`.
"""

from __future__ import annotations

import os

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"  # before numpy is loaded

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import tables
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from lightning_ww import analyze
from lightning_ww.callbacks._weights.pictures import WeightPictures
from lightning_ww.curvature import spectral_density
from lightning_ww.curvature.plots.evolution import evolution
from lightning_ww.curvature.plots.stems import spectrum_figure
from lightning_ww.drawing.canvas import picture
from lightning_ww.history import History, Measurement, Moment
from lightning_ww.weights.metrics import KEY_METRICS

MEASUREMENTS = 1000


def weights(count: int, writer: SummaryWriter) -> Callable[[], None]:
    """Everything that is drawn of so many layers at a measurement at which three spectra are."""
    torch.manual_seed(0)
    report = analyze(nn.ModuleDict({f"block_{i}": nn.Linear(96, 64) for i in range(count)}))
    history: History[Measurement] = History(MEASUREMENTS, Measurement)
    for i in range(MEASUREMENTS):
        history.append(Measurement.of(Moment(i, i, i, i, i == 0), report, KEY_METRICS))

    def draw() -> None:
        three = [layer.name for layer in report.layers[:3]]  # with a new flag, so that everything is drawn
        pictures = WeightPictures(None, 10, compare=False, drawn={})
        for due in pictures.due(history, report, KEY_METRICS, three, three):
            if due.when == "now":
                writer.add_image(due.key, due.draw(), dataformats="HWC")

    return draw


def curvature(writer: SummaryWriter) -> Callable[[], None]:
    """The stems and the evolution of a thousand spectra."""
    densities = [spectral_density(torch.diag(torch.randn(200)), num_steps=30, seed=i) for i in range(40)] * 25

    def draw() -> None:
        stems = picture(lambda: spectrum_figure(densities[-1], "title", 2.0))
        so_far = evolution("title", densities, list(range(MEASUREMENTS)), [2.0] * MEASUREMENTS)
        for tag, pixels in (("stems", stems), ("so far", so_far)):
            writer.add_image(tag, pixels, dataformats="HWC")

    return draw


CASES: dict[str, Callable[[SummaryWriter], Callable[[], None]]] = {
    **{f"weights, {count} layers": partial(weights, count) for count in (5, 30, 150)},
    "curvature": curvature,
}


def timed(case: str, rounds: int) -> list[float]:
    """CPU time of each drawing, the first of its process among them."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
        draw = CASES[case](writer)
        taken = []
        for _ in range(rounds + 1):
            began = time.process_time()
            draw()
            taken.append(time.process_time() - began)
    return taken


def main() -> None:
    """Run everything; about a minute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows: list[tables.Row] = []
    for case in CASES:  # each in a process of its own, where fonts and the like are loaded with the first picture
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            first, *later = process.submit(timed, case, options.rounds).result()
        for label, share in ((f"{case}, first of a process", first), (case, statistics.median(later))):
            rows.append((label, f"{100 * share:.3g} %", "≤ 100 %", "yes" if share <= 1 else "NO"))
    heading = "Drawing at one measurement\n\nWritten by `make bench`; the script says what is drawn."
    tables.conclude(tables.write(__file__, heading, rows, ("what is drawn", "of a second")), rows)


if __name__ == "__main__":
    main()
