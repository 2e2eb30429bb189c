"""Operations whose second derivative takes only a few kernels: activations, softmax, convolution.

Torch has the second derivative of each, but in every product with a vector it computes again the terms that do not
depend on the vector. For a convolution, it computes one term by a convolution whose kernel is as large as the image.

Each operation y(x) is a pair of functions: the operation, and its slope ``(g, x) ↦ ∂⟨g, y⟩/∂x``, whose own backward
pass is the second derivative. Third derivatives, which a loss that contains a gradient needs, are by autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

Through = Callable[[Tensor], Tensor]
"""A function from a saved tensor to the tensor that a backward pass uses in its place when it builds a graph."""

# mypy: disable-error-code="override, no-untyped-call"
# ruff: noqa: D102 -- `torch.autograd.Function` documents `forward` and `backward`


class Pointwise(Function):
    """An activation f, whose f′(x) and f″(x) are computed once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Callable[[Tensor], Tensor], through: Through) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            y = f(leaf)
            (first,) = torch.autograd.grad(y, leaf, torch.ones_like(y), create_graph=True)
            (second,) = torch.autograd.grad(first, leaf, torch.ones_like(y))
        ctx.f, ctx.through = f, through
        ctx.save_for_backward(x, first.detach(), second)
        return y.detach()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, first, second = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return g * first, None, None
        if is_transformed(g):
            return g * _slope(ctx.f, ctx.through(x)), None, None
        return _PointwiseSlope.apply(g, ctx.through(x), first, second, ctx.f), None, None


class _PointwiseSlope(Function):
    """The slope of an activation, ``g f′(x)``."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, first: Tensor, second: Tensor, f: Any) -> Tensor:
        ctx.f = f
        ctx.save_for_backward(g, x, first, second)
        return g * first

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        g, x, first, second = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *by_autograd(lambda g, x: g * _slope(ctx.f, x), (g, x), v), None, None, None
        by_x = (v * g).mul_(second) if ctx.needs_input_grad[1] else None
        return v * first, by_x, None, None, None


class Softmax(Function):
    """Softmax, ``y = softmax(x)``, along one dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, through: Through) -> Tensor:
        y = torch.softmax(x, dim)
        ctx.dim, ctx.through = dim, through
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        if not torch.is_grad_enabled() or is_transformed(g):
            return torch._softmax_backward_data(g, ctx.through(y), ctx.dim, y.dtype), None, None
        return _SoftmaxSlope.apply(g, ctx.through(y), ctx.dim), None, None


class _SoftmaxSlope(Function):
    """The slope of softmax, ``y (g − ⟨g, y⟩)``, as a function of g and y."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        ctx.save_for_backward(g, y, (g * y).sum(dim, keepdim=True))
        return torch._softmax_backward_data(g, y, dim, y.dtype)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        g, y, along = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *by_autograd(lambda g, y: y * (g - (g * y).sum(ctx.dim, keepdim=True)), (g, y), v), None
        centered = v - (v * y).sum(ctx.dim, keepdim=True)
        by_g = y * centered
        by_y = (g * centered).sub_(v * along) if ctx.needs_input_grad[1] else None
        return by_g, by_y, None


class LogSoftmax(Function):
    """Log-softmax, ``y = log softmax(x)``, along one dimension, whose ``p = exp y`` is computed once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, through: Through) -> Tensor:
        y = torch.log_softmax(x, dim)
        ctx.dim, ctx.through = dim, through
        ctx.save_for_backward(y, y.exp())
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        y, p = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return torch.addcmul(g, p, g.sum(ctx.dim, keepdim=True), value=-1), None, None
        if is_transformed(g):
            return g - ctx.through(y).exp() * g.sum(ctx.dim, keepdim=True), None, None
        return _LogSoftmaxSlope.apply(g, ctx.through(y), p, ctx.dim), None, None


class _LogSoftmaxSlope(Function):
    """The slope of log-softmax, ``g − exp(y) ⟨g, 1⟩``, as a function of g and y."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor, p: Tensor, dim: int) -> Tensor:
        total = g.sum(dim, keepdim=True)
        ctx.dim = dim
        ctx.save_for_backward(g, y, p, total)
        return torch.addcmul(g, p, total, value=-1)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        g, y, p, total = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *by_autograd(lambda g, y: g - y.exp() * g.sum(ctx.dim, keepdim=True), (g, y), v), None, None
        weighted = p * v
        by_g = v - weighted.sum(ctx.dim, keepdim=True)
        return by_g, (weighted.mul_(-total) if ctx.needs_input_grad[1] else None), None, None


class Convolution(Function):
    """Convolution, ``x ∗ w`` plus a bias; ``how`` has the other arguments of ``aten.convolution``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, how: tuple[Any, ...], through: Through) -> Tensor:
        ctx.how, ctx.through = how, through
        ctx.save_for_backward(x, w)
        return torch.convolution(x, w, bias, *how)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        needed = ctx.needs_input_grad
        by_bias = g.sum([0, *range(2, g.ndim)]) if needed[2] else None
        if not torch.is_grad_enabled() or is_transformed(g):
            return *_convolution_slopes(g, ctx.through(x), ctx.through(w), ctx.how, needed), by_bias, None, None
        return *_ConvolutionSlopes.apply(g, ctx.through(x), ctx.through(w), ctx.how, needed), by_bias, None, None


class _ConvolutionSlopes(Function):
    """The slopes ``∂⟨g, x ∗ w⟩/∂x`` and ``/∂w`` of convolution; their product with (a, b) is ``⟨g, a ∗ w + x ∗ b⟩``."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, how: Any, needed: Sequence[bool]) -> Any:
        ctx.how = how
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, x, w)
        return _convolution_slopes(g, x, w, how, needed)

    @staticmethod
    def backward(ctx: Any, a: Tensor | None, b: Tensor | None) -> Any:
        g, x, w = ctx.saved_tensors

        if a is None and b is None:
            return None, None, None, None, None

        def combined(x: Tensor, w: Tensor) -> Tensor:
            of_a = None if a is None else torch.convolution(a, w, None, *ctx.how)
            if b is None:
                assert of_a is not None
                return of_a
            of_b = torch.convolution(x, b, None, *ctx.how)
            return of_b if of_a is None else of_b + of_a

        if torch.is_grad_enabled():
            return combined(x, w), *by_autograd(combined, (x, w), g), None, None
        needed = (b is not None and ctx.needs_input_grad[1], a is not None and ctx.needs_input_grad[2])
        by_x, by_w = _convolution_slopes(g, x if a is None else a, w if b is None else b, ctx.how, needed)
        return combined(x, w), by_x, by_w, None, None


def _convolution_slopes(g: Tensor, x: Tensor, w: Tensor, how: Any, needed: Sequence[bool]) -> Any:
    return torch.ops.aten.convolution_backward(g, x, w, None, *how, [*needed[:2], False])[:2]


def by_autograd(formula: Callable[..., Tensor], inputs: Sequence[Tensor], v: Tensor) -> list[Tensor | None]:
    """The partial derivatives of ⟨formula, v⟩, themselves differentiable; the inputs may depend on each other."""
    separate = [tensor.view_as(tensor) for tensor in inputs]
    value = formula(*separate)
    differentiable = [tensor for tensor in separate if tensor.requires_grad]
    if not value.requires_grad or not differentiable:
        return [None] * len(inputs)
    gradients = iter(torch.autograd.grad(value, differentiable, v, create_graph=True, allow_unused=True))
    return [next(gradients) if tensor.requires_grad else None for tensor in separate]


def is_transformed(g: Tensor) -> bool:
    """Tell whether a backward pass is batched or has a tangent, so that it needs torch's own operations."""
    functorch = torch._C._functorch
    batched = functorch.is_legacy_batchedtensor(g) or functorch.is_functorch_wrapped_tensor(g)
    return batched or forward_ad.unpack_dual(g).tangent is not None


def _slope(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x if x.requires_grad else x.detach().requires_grad_()
    y = f(x)
    return torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)[0]
