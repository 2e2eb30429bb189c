"""Custom functions whose second derivative cannot be had, or is wrong without an error."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        return torch.as_tensor(upstream[0] * 3 * ctx.saved_tensors[0] ** 2)


class HiddenIntermediate(torch.autograd.Function):
    """Its backward reads a value that autograd does not know to depend on the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.slope = x.detach() ** 2
        return x**3 / 3

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        return upstream[0] * torch.as_tensor(ctx.slope)
