"""The Hessian of a classifier of digits has as many outliers as there are classes, less one.

Sagun et al. (2017), arXiv:1706.04454; Papyan (2018), arXiv:1811.07062. It is a tendency and no law: with three or four
classes some networks have fewer, and where no gap is clear, there is no number.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

from lightning_ww.curvature import HessianOperator, spectral_density


def num_outliers(classes: int, seed: int) -> int | None:
    """Of a small ReLU network that has learned to tell scikit-learn's first digits apart."""
    torch.manual_seed(seed)
    images, digits = load_digits(return_X_y=True)
    chosen = digits < classes
    x = torch.tensor(images[chosen][:400], dtype=torch.float32) / 16
    y = torch.tensor(digits[chosen][:400])
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(250):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    H = HessianOperator(lambda: nn.functional.cross_entropy(model(x), y), list(model.parameters()))
    return spectral_density(H, num_steps=80).num_outliers


def main(arguments: list[str] | None = None) -> None:
    """Count them in five networks for each number of classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 3, 4, 6, 10])
    options = parser.parse_args(arguments)
    for classes in options.classes:
        found = [num_outliers(classes, seed) for seed in range(5)]
        print(f"{classes:2} classes: {', '.join(map(str, found))} outliers in five networks")


if __name__ == "__main__":
    main()
