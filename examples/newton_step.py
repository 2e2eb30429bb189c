"""A Newton step by GPyTorch's solver: the operators of this package are its own kind.

``(G + damping · 1)⁻¹ g`` with the Gauss–Newton matrix G, by conjugate gradients, of a small network that has learned digits
for a while. The best step along it lowers the loss by more than the best step along the gradient.
"""

from __future__ import annotations

import argparse

import torch
from linear_operator.operators import AddedDiagLinearOperator, ConstantDiagLinearOperator
from linear_operator.utils.linear_cg import linear_cg
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lightning_ww.curvature import GGNOperator


def network(steps: int) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A perceptron after some steps of gradient descent, with its data."""
    torch.manual_seed(0)
    images, digits = load_digits(return_X_y=True)
    x, y = torch.tensor(images[:600], dtype=torch.float64) / 16, torch.tensor(digits[:600])
    model = nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    return model, x, y


def moved(model: nn.Module, step: Tensor, x: Tensor, y: Tensor) -> float:
    """The loss after a step, which is taken back."""
    start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    nn.utils.vector_to_parameters(start + step, model.parameters())
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(x), y).item()
    nn.utils.vector_to_parameters(start, model.parameters())
    return loss


def main(arguments: list[str] | None = None) -> None:
    """Compare both steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800, help="of gradient descent before")
    parser.add_argument("--damping", type=float, default=1e-2)
    options = parser.parse_args(arguments)
    model, x, y = network(options.steps)
    params = list(model.parameters())
    matrix = GGNOperator(lambda: model(x), lambda z: nn.functional.cross_entropy(z, y), params)
    loss = nn.functional.cross_entropy(model(x), y)
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, params)])
    damping = ConstantDiagLinearOperator(torch.tensor([options.damping], dtype=gradient.dtype), len(gradient))
    damped = AddedDiagLinearOperator(matrix, damping)
    newton = linear_cg(damped.matmul, gradient, max_iter=2000, tolerance=1e-4, max_tridiag_iter=0)
    residual = float((damped.matmul(newton) - gradient).norm() / gradient.norm())
    plain, curved = (
        min(moved(model, -(2.0**power) * step, x, y) for power in range(-8, 8)) for step in (gradient, newton)
    )
    print(f"loss {float(loss.detach()):.4f}; after the best step along the gradient: {plain:.4f}")
    print(f"after the best step along Newton's, to a residual of {residual:.1e}: {curved:.4f}")


if __name__ == "__main__":
    main()
