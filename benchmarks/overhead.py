"""What the monitors add to whole fits, with their defaults and a TensorBoard logger: wall time and CPU time of the process.

A perceptron on scikit-learn's digits, a ResNet-20 and a GPT with three million parameters, in short epochs of 50 to 100 steps.
One thread for torch, so that a second core is idle; the kinds take turns, once each, so that the figures are good to about
ten percent; with more `ROUNDS` the least time counts. Writes `benchmarks/overhead.md`.
"""

from __future__ import annotations

import os

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"  # before numpy is loaded

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import tables
import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from tables import Row
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from trainable import GPT, residual_network

from lightning_ww.callbacks import CurvatureMonitor, WeightSpectrumMonitor

ROUNDS = 1

Batches = DataLoader[tuple[torch.Tensor, ...]]


class Learner(LightningModule):
    """A network that is trained by Adam on a cross-entropy."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """The loss of a batch."""
        return functional.cross_entropy(self.net(batch[0]), batch[1].flatten())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, with its defaults."""
        return torch.optim.Adam(self.parameters())


def perceptron() -> tuple[nn.Module, Batches]:
    """The digits, 100 steps an epoch."""
    digits = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    return net, DataLoader(TensorDataset(images[:1600], labels[:1600]), 16, shuffle=True)


def resnet20() -> tuple[nn.Module, Batches]:
    """Random images, 50 steps an epoch."""
    images, labels = torch.randn(800, 3, 32, 32), torch.randint(10, (800,))
    return residual_network([16, 32, 64], 3), DataLoader(TensorDataset(images, labels), 16, shuffle=True)


def gpt() -> tuple[nn.Module, Batches]:
    """Random tokens, 50 steps an epoch."""
    tokens = torch.randint(512, (200, 65))
    data = TensorDataset(tokens[:, :-1], tokens[:, 1:])
    return GPT(width=256, length=64), DataLoader(data, 4, shuffle=True)


RUNS: dict[str, tuple[Callable[[], tuple[nn.Module, Batches]], int]] = {
    "perceptron, 50 epochs": (perceptron, 50),
    "ResNet-20, 5 epochs": (resnet20, 5),
    "GPT, 5 epochs": (gpt, 5),
}

KINDS: dict[str, list[Callable[[], Any]]] = {
    "without": [],
    "weights, sync": [lambda: WeightSpectrumMonitor(execution="sync")],
    "weights, auto": [WeightSpectrumMonitor],
    "weights, background": [lambda: WeightSpectrumMonitor(execution="background")],
    "both, sync": [lambda: WeightSpectrumMonitor(execution="sync"), lambda: CurvatureMonitor(execution="sync")],
    "both, auto": [WeightSpectrumMonitor, CurvatureMonitor],
    "both, max_overhead=0.02": [
        lambda: WeightSpectrumMonitor(max_overhead=0.02),
        lambda: CurvatureMonitor(max_overhead=0.02),
    ],
}


def fit(
    make: Callable[[], tuple[nn.Module, Batches]], epochs: int, monitors: list[Callable[[], Any]]
) -> tuple[float, float]:
    """Wall and CPU seconds of a fit."""
    seed_everything(0, verbose=False)
    net, batches = make()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=epochs,
            logger=TensorBoardLogger(folder),
            callbacks=[monitor() for monitor in monitors],
            accelerator="cpu",
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        wall, cpu = time.perf_counter(), time.process_time()
        trainer.fit(Learner(net), batches)
        return time.perf_counter() - wall, time.process_time() - cpu


def rows(name: str) -> list[Row]:
    """What each kind adds, in parts of the fit without monitors."""
    make, epochs = RUNS[name]
    taken: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for _ in range(ROUNDS):
        for kind, monitors in KINDS.items():
            taken[kind].append(fit(make, epochs, monitors))
    least = {kind: [min(some) for some in zip(*times, strict=True)] for kind, times in taken.items()}
    return [
        (
            f"{name}: {kind}",
            f"wall {100 * (wall / least['without'][0] - 1):+.0f} %, CPU {100 * (cpu / least['without'][1] - 1):+.0f} %",
            "–",
            "–",
        )
        for kind, (wall, cpu) in least.items()
        if kind != "without"
    ]


def main() -> None:
    """Run everything; about ten minutes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(RUNS), help="one of the fits, without writing the table")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for logger in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    fit(perceptron, 1, [WeightSpectrumMonitor, CurvatureMonitor])  # whatever is imported when it is first needed
    found = [row for name in ([only] if only else RUNS) for row in rows(name)]
    heading = "What monitors add to a fit\n\nWritten by `make bench`; the script says what is compared."
    if only:
        print(*found, sep="\n")
    else:
        tables.conclude(tables.write(__file__, heading, found), found)


if __name__ == "__main__":
    main()
