"""Perceptrons on scikit-learn's digits, trained in a plain loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


@dataclass(frozen=True)
class Trained:
    """A trained network, its initial copy, and its accuracies."""

    network: nn.Sequential
    initial: nn.Sequential
    train: float
    test: float


def data(seed: int, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """1,200 digits to train on, with a share of labels drawn anew, and 597 to test."""
    x, y = load_digits(return_X_y=True)
    random = np.random.default_rng(seed)
    order = random.permutation(len(y))
    images, labels = torch.tensor(x[order] / 16, dtype=torch.float32), torch.tensor(y[order])
    drawn = torch.tensor(random.integers(0, 10, len(y)))
    noisy = torch.where(torch.tensor(random.random(len(y)) < noise), drawn, labels)
    return images[:1200], noisy[:1200], images[1200:], labels[1200:]


def perceptron(widths: tuple[int, ...], seed: int) -> nn.Sequential:
    """A perceptron with rectifiers."""
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    for a, b in pairwise(widths):
        parts += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def train(
    seed: int,
    *,
    widths: tuple[int, ...] = (64, 256, 128, 10),
    epochs: int = 20,
    optimizer: Callable[[Any], torch.optim.Optimizer] = lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    batch: int = 32,
    noise: float = 0.0,
    penalty: Callable[[nn.Sequential], Tensor] | None = None,
    after_epoch: Callable[[int, nn.Sequential], None] | None = None,
) -> Trained:
    """Train a perceptron; ``penalty`` is added to the loss."""
    x, y, test_x, test_y = data(seed, noise)
    network = perceptron(widths, seed)
    initial = copy.deepcopy(network)
    steps = optimizer(network.parameters())
    for epoch in range(epochs):
        for some in torch.split(torch.randperm(len(x)), batch):
            loss = nn.functional.cross_entropy(network(x[some]), y[some])
            loss = loss if penalty is None else loss + penalty(network)
            steps.zero_grad()
            torch.autograd.backward(loss)
            steps.step()
        if after_epoch is not None:
            after_epoch(epoch + 1, network)
    with torch.no_grad():
        accuracies = [float((network(a).argmax(1) == b).float().mean()) for a, b in ((x, y), (test_x, test_y))]
    return Trained(network, initial, *accuracies)


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Adam with its usual rate."""
    return torch.optim.Adam(parameters, 1e-3)
