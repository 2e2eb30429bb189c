"""A small trained network with its exact Hessian, and how far a quadrature is from exact eigenvalues."""

from __future__ import annotations

from functools import lru_cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from lightning_ww.curvature import HessianOperator


class Trained:
    """A tanh network of 2,058 parameters on digits of the first 20 principal axes, and its exact curvature."""

    def __init__(self, steps: int, l2: float = 0.0, dead: int = 0) -> None:
        torch.manual_seed(0)
        points, labels = load_digits(return_X_y=True)
        x = torch.tensor(points[:500], dtype=torch.float64)
        x = x - x.mean(0)
        axes = torch.linalg.svd(x, full_matrices=False).Vh[:20]
        self.x, self.y = x @ axes.T / 20, torch.tensor(labels[:500])
        self.l2 = l2
        self.model = nn.Sequential(
            nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10)
        ).double()
        self.params = list(self.model.parameters())
        with torch.no_grad():
            self.params[4][:, :dead] = 0  # these hidden units reach no output …
            self.params[2][:dead] = 0  # … and hear nothing
        optimizer = torch.optim.Adam(self.params, lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss().backward()  # type: ignore[no-untyped-call]
            if dead:
                for p, index in ((self.params[4], (slice(None), slice(dead))), (self.params[2], slice(dead))):
                    assert p.grad is not None
                    p.grad[index] = 0
            optimizer.step()
        self.hessian = HessianOperator(self.loss, self.params)
        self.dense = self.hessian.to_dense()
        self.values = torch.linalg.eigvalsh(self.dense)

    def loss(self) -> Tensor:
        penalty = torch.cat([p.reshape(-1) for p in self.params]).square().sum()
        return functional.cross_entropy(self.model(self.x), self.y) + self.l2 / 2 * penalty


@lru_cache
def trained(steps: int = 300, l2: float = 0.0, dead: int = 0) -> Trained:
    return Trained(steps, l2, dead)


def wasserstein(nodes: Tensor, weights: Tensor, values: Tensor) -> float:
    """Between a quadrature and a list of eigenvalues."""
    order = nodes.argsort()
    grid = torch.cat([nodes, values]).sort().values
    ours = torch.searchsorted(nodes[order], grid[:-1], right=True)
    cdf = torch.cat([torch.zeros(1, dtype=torch.float64), weights[order].cumsum(0)])[ours]
    theirs = torch.searchsorted(values.sort().values, grid[:-1], right=True) / values.numel()
    return float(((cdf - theirs).abs() * grid.diff()).sum())
