"""Hessians and Jacobians by torch's own derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_ww.curvature import HessianOperator


def flat_hessian(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Torch's own, of its own operations."""
    dense = torch.autograd.functional.hessian(loss, x)  # type: ignore[no-untyped-call]
    return torch.as_tensor(dense).reshape(x.numel(), x.numel())


def of_module(module: nn.Module, data: Tensor, judge: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The loss of the module's flat parameters, and of the data behind them."""
    shapes = {name: p.shape for name, p in module.named_parameters()}

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [shape.numel() for shape in shapes.values()] + [data.numel()])
        weights = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=False)}
        return judge(torch.func.functional_call(module, weights, parts[-1].view_as(data)))

    return loss


def jacobian(values: Tensor, params: list[nn.Parameter]) -> Tensor:
    """Row by row, by torch's own operations."""

    def row(value: Tensor) -> Tensor:
        parts = torch.autograd.grad(value, params, retain_graph=True, allow_unused=True, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts])

    return torch.stack([row(value) for value in values.flatten()])


def agree(loss: Callable[[Tensor], Tensor], x: Tensor) -> None:
    expected = flat_hessian(loss, x.detach())
    leaf = x.detach().clone().requires_grad_()
    found = HessianOperator(lambda: loss(leaf), [leaf]).to_dense()
    assert expected.norm() > 0
    torch.testing.assert_close(found, (expected + expected.T) / 2, rtol=1e-10, atol=1e-10 * float(expected.norm()))
