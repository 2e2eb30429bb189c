"""Grokking of modular addition: what alpha, rand_distance and the entropy say while test accuracy rises late."""

from __future__ import annotations

import numpy as np
import torch
from claims import SEEDS, Claim, plot, save
from torch import Tensor, nn

from lightning_ww import analyze

CHECKS = 24


class Squared(nn.Module):
    """One hidden layer with a squared activation."""

    def __init__(self, prime: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2 * prime, 200, bias=False), nn.Linear(200, prime, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return torch.as_tensor(self.second(self.first(x).square()))


def run(prime: int, share: float, steps: int, seed: int) -> np.ndarray:
    """Train; rows of step, training and test accuracy, alpha, alpha_hill and rand_distance of the first layer."""
    torch.manual_seed(seed)
    a, b = (part.flatten() for part in torch.meshgrid(torch.arange(prime), torch.arange(prime), indexing="ij"))
    hot = nn.functional.one_hot
    x, y = torch.cat([hot(a, prime), hot(b, prime)], 1).float(), (a + b) % prime
    order = torch.randperm(len(y))
    known, rest = order[: int(share * len(y))], order[int(share * len(y)) :]
    network = Squared(prime)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, betas=(0.9, 0.98), weight_decay=0.3)
    rows = []
    for step in range(steps + 1):
        if step % (steps // CHECKS) == 0:
            with torch.no_grad():
                train, test = (float((network(x[i]).argmax(1) == y[i]).float().mean()) for i in (known, rest))
            layer = analyze(network)["first"]
            rows.append(
                (step, train, test, layer.alpha or np.nan, layer.alpha_hill or np.nan, layer.rand_distance or np.nan)
            )
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(network(x[known]), y[known]))
        optimizer.step()
    return np.array(rows)


def reproduce() -> list[Claim]:
    """Modulo 31, which groks late, and modulo 47, which does at once."""
    late = [run(31, 0.4, 8000, seed) for seed in range(SEEDS)]
    soon = [run(47, 0.5, 1600, seed) for seed in range(SEEDS)]
    figure, pair = plot.subplots(1, 2, figsize=(9, 3.4))
    for axes, runs, title in zip(pair, (late, soon), ("modulo 31", "modulo 47"), strict=True):
        for rows in runs:
            axes.plot(rows[:, 0], rows[:, 2], color="#0072B2", label="test accuracy")
            axes.plot(rows[:, 0], rows[:, 4] / 5, color="#D55E00", label="alpha_hill / 5")
        axes.set_title(title)
        axes.set_xlabel("step")
    pair[0].legend(*(found[:2] for found in pair[0].get_legend_handles_labels()))
    save(figure, "grokking")
    learned = np.array([rows[rows[:, 1] > 0.99, 0].min(initial=np.inf) for rows in late])
    grokked = np.array([rows[rows[:, 2] > 0.9, 0].min(initial=np.inf) for rows in late])
    hills = np.array([(rows[0, 4], rows[-1, 4]) for rows in late])
    far = np.array([(rows[0, 5], rows[-1, 5]) for rows in late])
    last = np.array([(rows[-1, 2], rows[-1, 3]) for rows in soon])
    count = int(np.isfinite(grokked).sum())
    return [
        Claim(
            "Modulo 31: test accuracy rises long after training accuracy is 1, and the spectrum moves meanwhile.",
            "training done by step 700, test at 0.9 by step 4,700; alpha_hill from 3.8 to 2.5, rand_distance from 0.02 to 0.14",
            f"{count} of {SEEDS} seeds reach 0.9, training done by step {np.median(learned):.0f}, test at 0.9 by step "
            f"{np.median(grokked):.0f}; alpha_hill from {hills[:, 0].mean():.2f} to {hills[:, 1].mean():.2f}, rand_distance from "
            f"{far[:, 0].mean():.2f} to {far[:, 1].mean():.2f}",
            "holds" if count == SEEDS and (hills[:, 1] < hills[:, 0]).all() else "holds in part",
        ),
        Claim(
            "A layer with alpha above 6 is under-trained.",
            "a network that generalizes has alpha in 2 … 6",
            f"modulo 47: test accuracy {100 * last[:, 0].mean():.0f} % with an alpha of {', '.join(f'{a:.1f}' for a in last[:, 1])}",
            "does not hold" if (last[:, 1] > 6).any() and last[:, 0].min() > 0.95 else "holds in part",
        ),
    ]
