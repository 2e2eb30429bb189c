"""The curvature of real training against theory that this project did not write."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lightning_ww.curvature import HessianOperator, spectral_density


def digits(samples: int) -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x[:samples] / 16, dtype=torch.float32), torch.tensor(y[:samples])


@pytest.mark.slow
@pytest.mark.parametrize("lr", [0.3, 0.4, 0.6])
def test_gradient_descent_settles_at_the_edge_of_stability(lr: float) -> None:
    """Full-batch gradient descent raises the sharpness until lr·λ_max = 2 (Cohen et al., 2021, arXiv:2103.00065)."""
    x, y = digits(500)
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    targets = nn.functional.one_hot(y, 10).float()

    def loss() -> Tensor:
        return torch.as_tensor(0.5 * (model(x) - targets).square().sum(dim=1).mean())

    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    seen = []
    for step in range(4000):
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step >= 3000 and step % 100 == 0:
            H = HessianOperator(loss, list(model.parameters()))
            seen.append(lr * spectral_density(H, num_steps=15).sharpness)
    assert sum(seen) / len(seen) == pytest.approx(2, rel=0.1)


def outliers(classes: int, seed: int) -> int | None:
    """Of the Hessian of a small ReLU network after 250 steps on clusters of so many classes."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    y = torch.arange(400) % classes
    centres = torch.randn(classes, 30, generator=generator)
    x = (centres[y] + torch.randn(400, 30, generator=generator)) / 2
    model = nn.Sequential(nn.Linear(30, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(250):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    H = HessianOperator(lambda: nn.functional.cross_entropy(model(x), y), list(model.parameters()))
    return spectral_density(H, num_steps=80).num_outliers


@pytest.mark.slow
@pytest.mark.parametrize("classes", [3, 4, 6, 10])
def test_the_hessian_mostly_has_as_many_outliers_as_classes_or_one_less(classes: int) -> None:
    """Sagun et al. (2017), arXiv:1706.04454; Papyan (2018), arXiv:1811.07062. Not a law: five networks vote."""
    votes = [outliers(classes, seed) in (classes - 1, classes) for seed in range(5)]
    assert sum(votes) >= 3
