"""Norms written out: their values are torch's, and so are their first two derivatives; the third is that of differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers.derivatives import agree, flat_hessian
from torch import Tensor, nn
from torch.nn import functional

from lightning_ww.curvature.second_derivatives.context import differentiable_twice
from lightning_ww.curvature.second_derivatives.norms import standardized

NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "layer norm without affine": lambda x: functional.layer_norm(x, (4,)),
    "instance norm": lambda x: functional.instance_norm(x.view(2, 3, 4)),
    "instance norm in 2d": lambda x: functional.instance_norm(x.view(2, 3, 2, 2), eps=0.1),
    "batch statistics": lambda x: functional.batch_norm(x, None, None, training=True),
    "batch statistics in 1d": lambda x: functional.batch_norm(x.view(2, 3, 4), None, None, training=True),
}


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NORMS)
def test_the_second_derivative_is_torchs(name: str, x: Tensor) -> None:
    weights = torch.linspace(-1, 2, x.numel(), dtype=torch.float64)
    agree(lambda x: (NORMS[name](x.view(6, 4)).flatten() * weights).sin().sum(), x)


@pytest.mark.parametrize("name", NORMS)
def test_the_third_derivative_is_that_of_differences_of_torchs_second(name: str, x: Tensor) -> None:
    weights = torch.linspace(-1, 2, x.numel(), dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        return (NORMS[name](x.view(6, 4)).flatten() * weights).sin().sum()

    generator = torch.Generator().manual_seed(2)
    u, v, w = (torch.randn(x.shape, dtype=torch.float64, generator=generator) for _ in range(3))
    step = 1e-4
    ends = [flat_hessian(loss, x + sign * step * u) for sign in (1, -1)]
    expected = float(v.flatten() @ (ends[0] - ends[1]) @ w.flatten()) / (2 * step)
    leaf = x.clone().requires_grad_()
    with differentiable_twice():
        (slope,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        (curve,) = torch.autograd.grad((slope * v).sum(), leaf, create_graph=True)
        (third,) = torch.autograd.grad((curve * w).sum(), leaf)
    assert float((third * u).sum()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("module", "shape"), [(nn.BatchNorm2d(3), (4, 3, 2, 2)), (nn.InstanceNorm1d(3), (4, 3, 5))])
def test_running_statistics_are_those_of_torch(module: nn.Module, shape: tuple[int, ...]) -> None:
    kind: type[nn.Module] = type(module)
    ours, torchs = (kind(3, affine=True, track_running_stats=True, momentum=0.3) for _ in range(2))
    data = torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 3 + 1
    with differentiable_twice():
        found = ours(data.requires_grad_())
    torch.testing.assert_close(found, torchs(data))
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, dict(torchs.named_buffers())[name])


def test_standardized_values_have_mean_zero_and_variance_one(x: Tensor) -> None:
    scaled, mean, variance = standardized(x, [0], 0.0)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(scaled.var(0, correction=0), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(mean[0], x.mean(0))
    torch.testing.assert_close(variance[0], x.var(0, correction=0))
