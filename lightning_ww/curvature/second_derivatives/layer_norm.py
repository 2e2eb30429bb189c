"""Layer norm with a second derivative of only a few kernels, and a correct third derivative, unlike torch's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from lightning_ww.curvature.second_derivatives.functions import Through, by_autograd, is_transformed

# mypy: disable-error-code="override, no-untyped-call"
# ruff: noqa: D102 -- `torch.autograd.Function` documents `forward` and `backward`


class LayerNorm(Function):
    """Layer norm, ``y = w x̂ + bias`` with ``x̂ = (x - mean) r``, over the last dimensions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor | None, eps: float, through: Through) -> Tensor:
        y, mean, r = torch.native_layer_norm(x, w.shape, w, bias, eps)
        ctx.eps, ctx.through = eps, through
        ctx.save_for_backward(x, w, mean, r)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w, mean, r = ctx.saved_tensors
        by_bias = g.reshape(-1, *w.shape).sum(0) if ctx.needs_input_grad[2] else None
        if torch.is_grad_enabled():
            x, w = ctx.through(x), ctx.through(w)
            if is_transformed(g):
                return *_layer_norm_slopes(g, x, w, ctx.eps), by_bias, None, None
            return *_LayerNormSlopes.apply(g, x, w, mean, r, ctx.eps), by_bias, None, None
        needed = [True, True, False]
        return (
            *torch.ops.aten.native_layer_norm_backward(g, x, w.shape, mean, r, w, None, needed)[:2],
            by_bias,
            None,
            None,
        )


class _LayerNormSlopes(Function):
    """The slopes ``∂⟨g, y⟩/∂x = r (u - ⟨u⟩ - x̂ ⟨u x̂⟩)`` with ``u = g w`` and means ⟨⟩, and ``∂⟨g, y⟩/∂w = Σ g x̂``."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, mean: Tensor, r: Tensor, eps: float) -> Any:
        dims = list(range(-w.ndim, 0))
        scaled = (x - mean) * r
        centered = g * w
        centered -= centered.mean(dims, keepdim=True)
        along = (centered * scaled).mean(dims, keepdim=True)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, x, w, r, scaled, centered, along)
        by_x = torch.addcmul(centered, scaled, along, value=-1).mul_(r)
        return by_x, (g * scaled).reshape(-1, *w.shape).sum(0)

    @staticmethod
    def backward(ctx: Any, a: Tensor | None, b: Tensor | None) -> Any:
        g, x, w, r, scaled, centered, along = ctx.saved_tensors
        if a is None and b is None:
            return None, None, None, None, None, None
        if torch.is_grad_enabled():

            def pairing(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
                by_x, by_w = _layer_norm_slopes(g, x, w, ctx.eps)
                of_a = by_x.new_zeros(()) if a is None else (a * by_x).sum()
                return of_a if b is None else of_a + (b * by_w).sum()

            return *by_autograd(pairing, (g, x, w), torch.ones_like(g.sum())), None, None, None
        dims = list(range(-w.ndim, 0))
        by_g = by_x = by_w = None
        if a is not None:
            # the slope with respect to x, r (a - ⟨a⟩ - x̂ ⟨a x̂⟩), is symmetric in u and a
            other = a - a.mean(dims, keepdim=True)
            part = (other * scaled).mean(dims, keepdim=True)
            turned = (other - scaled * part).mul_(r)
            by_g = turned * w
            by_w = (g * turned).reshape(-1, *w.shape).sum(0) if ctx.needs_input_grad[2] else None
            if ctx.needs_input_grad[1]:
                both = (centered * other).mean(dims, keepdim=True)
                by_x = (scaled * (both - 3 * along * part)).add_(centered * part).add_(other * along).mul_(-r.square())
        if b is not None:
            by_g = b * scaled if by_g is None else by_g + b * scaled
            if ctx.needs_input_grad[1]:
                q = g * b
                q -= q.mean(dims, keepdim=True)
                q = q.sub_(scaled * (q * scaled).mean(dims, keepdim=True)).mul_(r)
                by_x = q if by_x is None else by_x.add_(q)
        return by_g, by_x, by_w, None, None, None


def _layer_norm_slopes(g: Tensor, x: Tensor, w: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The slopes by torch's basic operations, without its layer norm, whose third derivative is wrong."""
    dims = list(range(-w.ndim, 0))
    shifted = x - x.mean(dims, keepdim=True)
    r = (shifted.square().mean(dims, keepdim=True) + eps).rsqrt()
    scaled, u = shifted * r, g * w
    by_x = r * (u - u.mean(dims, keepdim=True) - scaled * (u * scaled).mean(dims, keepdim=True))
    return by_x, (g * scaled).reshape(-1, *w.shape).sum(0)
