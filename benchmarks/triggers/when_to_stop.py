"""Suite B: which rule stops training at the right epoch?

scikit-learn's digits, wine and breast cancer with labels drawn anew, a perceptron of two hidden layers of 128. Rules that need
no validation data train on all data; those that need some hold it out. A line of JSON for each run is added to a file in
`--folder`; runs that are there already are not repeated. `triggers_page.py` writes `docs/triggers.md` from it.
`--small` takes one seed and 15 epochs of a few settings.

References:
    Forouzesh, Thiran (2021), Disparity between batches as a signal for early stopping, ECML PKDD.
    Mahsereci et al. (2017), Early stopping without a validation set, arXiv:1703.09580.
    Yuan et al. (2025), Early stopping against label noise without validation data, ICLR.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import declared
import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from lightning_ww import History, Measurement, Moment, OverTrained, Plateau, analyze, diagnose
from lightning_ww.triggers.diagnosis import DEFAULTS

TRIGGERS = (*DEFAULTS, OverTrained(), Plateau())
SOURCES: dict[str, Any] = {"digits": load_digits, "wine": load_wine, "breast cancer": load_breast_cancer}


class Data:
    """Data to train on, with noise in the labels, and data to test."""

    def __init__(self, source: str, size: int | None, noise: float, seed: int) -> None:
        x, y = SOURCES[source](return_X_y=True)
        kept, test, labels, test_labels = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=y)
        if size is not None and size < len(kept):
            kept, _, labels, _ = train_test_split(kept, labels, train_size=size, random_state=seed, stratify=labels)
        mean, spread = kept.mean(0), kept.std(0) + 1e-3
        random = np.random.default_rng(seed)
        is_noisy = random.random(len(labels)) < noise
        labels = np.where(is_noisy, random.integers(0, y.max() + 1, len(labels)), labels)
        self.x, self.y = torch.tensor((kept - mean) / spread, dtype=torch.float32), torch.tensor(labels)
        self.test_x, self.test_y = torch.tensor((test - mean) / spread, dtype=torch.float32), torch.tensor(test_labels)
        self.classes = int(y.max()) + 1


def network_of(data: Data, seed: int) -> nn.Sequential:
    """The perceptron."""
    torch.manual_seed(seed)
    widths = (data.x.shape[1], 128, 128, data.classes)
    first, second, third = (nn.Linear(a, b) for a, b in itertools.pairwise(widths))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)


def optimizer_of(name: str, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer."""
    if name == "SGD":
        return torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    if name == "Adam":
        return torch.optim.Adam(network.parameters(), 1e-3)
    return torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.1)


def train_an_epoch(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, order: Tensor) -> None:
    """One epoch in batches of 32."""
    for some in torch.split(order, 32):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(network(x[some]), y[some]))
        optimizer.step()


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of right labels."""
    return float((network(x).argmax(1) == y).float().mean())


def disparities(network: nn.Module, x: Tensor, y: Tensor, order: Tensor) -> tuple[float, float]:
    """The mean distance between the gradients of whole batches: of the losses, and of the losses over their spread."""
    gradients, spreads = [], []
    for some in [part for part in torch.split(order, 32) if len(part) == 32][: declared.DISPARITY_BATCHES]:
        losses = nn.functional.cross_entropy(network(x[some]), y[some], reduction="none")
        spreads.append(losses.detach().std().clamp_min(1e-12))
        slopes = torch.autograd.grad(losses.mean(), list(network.parameters()))
        gradients.append(torch.cat([slope.flatten() for slope in slopes]))
    scaled = [gradient / spread for gradient, spread in zip(gradients, spreads, strict=True)]
    plain, rescaled = (
        float(torch.stack([(a - b).norm() for a, b in itertools.combinations(some, 2)]).mean())
        for some in (gradients, scaled)
    )
    return plain, rescaled


def evidence(network: nn.Sequential, x: Tensor, y: Tensor) -> float:
    """The evidence criterion, 1 - mean of n·g²/σ² over the parameters: above 0, the gradient is no more than its noise.

    For a linear layer with inputs a and slopes δ of its outputs, the squares of the samples' gradients sum to ``(δ²)ᵀ a²``.
    """
    inputs, outputs, hidden = [], [], x
    for part in network:
        if isinstance(part, nn.Linear):
            inputs.append(hidden)
            hidden = part(hidden)
            outputs.append(hidden)
        else:
            hidden = part(hidden)
    slopes = torch.autograd.grad(nn.functional.cross_entropy(hidden, y, reduction="sum"), outputs)
    n, ratios = len(x), []
    for before, slope in zip(inputs, slopes, strict=True):
        with_bias = torch.cat([before.detach(), torch.ones(n, 1)], dim=1)
        mean = slope.T @ with_bias / n
        variance = (slope.square().T @ with_bias.square() / n - mean.square()) * n / (n - 1)
        ratios.append((n * mean.square() / variance.clamp_min(1e-20)).flatten())
    return 1 - float(torch.cat(ratios).mean())


def run(source: str, size: int | None, noise: float, optimizer_name: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train on all data with every signal, then with data held out."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    data = Data(source, size, noise, seed)
    network, history = network_of(data, seed), History[Measurement]()
    optimizer = optimizer_of(optimizer_name, network)
    generator = torch.Generator().manual_seed(seed)
    guesses = network(data.x).argmax(1)
    needed = [need for trigger in TRIGGERS for need in trigger.needs]
    signals = "test", "disparity", "rescaled disparity", "evidence", "changes", "fired"
    found: dict[str, list[Any]] = {name: [] for name in signals}
    history.append(Measurement.of(Moment(0, 0, 0, 0, is_baseline=True), analyze(network, floor=True), needed))
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(data.x), generator=generator)
        train_an_epoch(network, optimizer, data.x, data.y, order)
        found["test"].append(accuracy(network, data.test_x, data.test_y))
        plain, rescaled = disparities(network, data.x, data.y, order)
        found["disparity"].append(plain)
        found["rescaled disparity"].append(rescaled)
        found["evidence"].append(evidence(network, data.x, data.y))
        before, guesses = guesses, network(data.x).argmax(1)
        found["changes"].append(int((guesses != before).sum()))
        found["fired"].append(judged(network, history, needed, epoch))
    return {
        **{"source": source, "size": size, "noise": noise, "optimizer": optimizer_name, "seed": seed},
        **{"samples": len(data.x), **found},
        "validated": {str(share): validated(data, optimizer_name, seed, epochs, share) for share in declared.HELD_OUT},
        "seconds": time.perf_counter() - began,
    }


def judged(network: nn.Module, history: History[Measurement], needed: list[str], epoch: int) -> list[str]:
    """The triggers that fire after an epoch."""
    report = analyze(network, floor=True)
    now = Measurement.of(Moment(epoch, epoch, epoch, epoch, is_baseline=False), report, needed)
    said = diagnose(history.up_to(now, report), TRIGGERS)
    history.append(now.judged({}, said.by_trigger, said.fired, said.layers_from_start))
    return list(said.fired)


def validated(data: Data, optimizer_name: str, seed: int, epochs: int, share: float) -> dict[str, list[float]]:
    """Train on a part of the data; the loss on the other part, and test accuracy."""
    held = max(1, round(share * len(data.x)))
    order = torch.randperm(len(data.x), generator=torch.Generator().manual_seed(seed + 1000))
    validation, rest = order[:held], order[held:]
    x, y = data.x[rest], data.y[rest]
    network, generator = network_of(data, seed), torch.Generator().manual_seed(seed)
    optimizer = optimizer_of(optimizer_name, network)
    losses, tests = [], []
    for _ in range(epochs):
        train_an_epoch(network, optimizer, x, y, torch.randperm(len(x), generator=generator))
        with torch.no_grad():
            losses.append(float(nn.functional.cross_entropy(network(data.x[validation]), data.y[validation])))
        tests.append(accuracy(network, data.test_x, data.test_y))
    return {"loss": losses, "test": tests}


def settings(*, small: bool) -> list[tuple[str, int | None, float, str, int, int]]:
    """All runs."""
    if small:
        return [("digits", 200, 0.4, name, 0, 15) for name in declared.OPTIMIZERS]
    sources: list[tuple[str, int | None]] = [("digits", size) for size in declared.SIZES]
    sources += [("wine", None), ("breast cancer", None)]
    return [
        (source, size, noise, name, seed, declared.LONGEST)
        for seed in range(declared.SEEDS)
        for (source, size), noise, name in itertools.product(sources, declared.NOISE, declared.OPTIMIZERS)
    ]


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one seed, 15 epochs, three settings")
    parser.add_argument("--folder", type=Path, default=Path("runs/triggers"), help="where results go")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many runs at a time")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    file = arguments.folder / ("when_to_stop_small.jsonl" if arguments.small else "when_to_stop.jsonl")
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {tuple(one[key] for key in ("source", "size", "noise", "optimizer", "seed")) for one in done}
    missing = [one for one in settings(small=arguments.small) if one[:-1] not in known]
    began = time.perf_counter()
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool, file.open("a") as out:
        for found in pool.map(run, *zip(*missing, strict=True)) if missing else ():
            out.write(json.dumps(found) + "\n")
            out.flush()
    print(f"{len(missing)} runs in {(time.perf_counter() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
