"""Whether autograd's second derivatives of a loss can be trusted: they can be wrong without an error."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_ww.curvature.krylov import lanczos
from lightning_ww.curvature.operators import (
    HessianOperator,
    NotFiniteError,
    WrongDerivativeError,
    gradient,
    parts_of,
    unseen_writes,
)
from lightning_ww.curvature.second_derivatives.context import differentiable_twice

ASYMMETRY = 1e4
"""⟨v, H(Hv)⟩ and ‖Hv‖² differ by less than so many roundings, or by much more."""

DISAGREEMENT = 0.15
"""A second difference of the loss contradicts autograd beyond this share; kinks (ReLU) alone make up to 0.1."""

AGREEMENT = 0.02
"""Second differences of several step lengths that agree to this share are taken for the second derivative."""

REPEATED = 1e-4
"""A loss that is not the same twice to this share is random."""


def check_gradient(loss: Callable[[], Tensor], params: Sequence[Tensor]) -> None:
    """Raise if gradients asked for by name are not those of a plain backward pass; one gradient more.

    What a reentrant checkpoint computes is not connected to its layers' parameters until it is computed again: asked
    for by name, their gradient is zero.

    Args:
        loss: ``() -> 0-d tensor`` at the current weights.
        params: Leaves whose ``.grad`` nobody else reads; it is lost.

    Raises:
        NotFiniteError: If the loss is not finite. It is a `ValueError`.
        WrongDerivativeError: With what was found.
    """
    with differentiable_twice():
        value = loss()
        if not torch.isfinite(value):
            raise NotFiniteError(f"the loss is {float(value.detach())}")
        try:
            torch.autograd.backward(value, retain_graph=True)
            plain = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in params])
        finally:
            for parameter in params:
                parameter.grad = None
        named = gradient(value, params)
    if not (plain - named).norm() <= ASYMMETRY * torch.finfo(plain.dtype).eps * plain.norm():
        raise WrongDerivativeError(
            "gradients asked for by name are not those of a backward pass, as with checkpoints that are reentrant "
            "(`use_reentrant=True`)"
        )


def check_second_derivatives(loss: Callable[[], Tensor], params: Sequence[Tensor], *, seed: int = 0) -> None:
    """Raise if second derivatives of the loss are wrong; about ten gradients.

    Three things go wrong silently: a backward that is differentiable only once, and gives no error when gradients are
    asked for by name; a function that is not the same twice; a custom function whose backward uses what autograd
    does not see. They are exposed by a backward pass to the leaves, by the symmetry of H, and by a second difference of
    the loss along the direction of largest curvature (where step lengths agree on one; a loss may have kinks).

    Args:
        loss: ``() -> 0-d tensor`` at the current weights.
        params: Leaves that nothing else reads: they are moved, and put back to the last bit; their ``.grad`` is lost.
        seed: Of the directions.

    Raises:
        WrongDerivativeError: With what was found.
    """
    generator = torch.Generator().manual_seed(seed)
    size = sum(parameter.numel() for parameter in params)
    check_gradient(loss, params)
    u, v = (torch.randn(size, generator=generator, dtype=torch.float64).to(params[0]) for _ in range(2))
    with differentiable_twice():
        value, again = loss(), loss()
        there, here = float(value.detach()), float(again.detach())
        slope = gradient(value, params, create_graph=True)
        if not abs(there - here) <= REPEATED * abs(there):
            raise WrongDerivativeError(f"the loss is not the same twice ({there:.6g}, then {here:.6g})")
        if not slope.requires_grad:
            return
        try:
            torch.autograd.backward(slope, v)  # without `inputs`, which would hide a backward that has no derivative
        except RuntimeError as error:
            raise WrongDerivativeError(f"the gradient cannot be differentiated again ({first_line(error)})") from error
        finally:
            for parameter in params:
                parameter.grad = None
    operator = HessianOperator(loss, params)
    # ⟨v, H(Hv)⟩ = ‖Hv‖²: for independent vectors both sides are close to zero where there are many parameters
    image = operator @ v
    squared = float(image.square().sum(dtype=torch.float64))
    defect = abs(float((v * (operator @ image)).sum(dtype=torch.float64)) - squared)
    if not defect <= ASYMMETRY * torch.finfo(u.dtype).eps * squared:
        raise WrongDerivativeError(
            "the second derivatives are not symmetric: a custom function's backward is not its forward's derivative"
        )
    largest, direction, _ = lanczos(lambda vector: operator @ vector, u, 4).top(by_size=True)
    measured = _second_difference(loss, params, direction, largest)
    if measured is not None and abs(measured - largest) > DISAGREEMENT * abs(measured):
        raise WrongDerivativeError(
            f"autograd's second derivative of the loss along one direction is {largest:.4g}, but the loss "
            f"bends by {measured:.4g} there: part of it is detached, or a custom function's backward uses values that "
            "autograd does not see"
        )


def _second_difference(
    loss: Callable[[], Tensor], params: Sequence[Tensor], direction: Tensor, expected: float
) -> float | None:
    """``d²L/dt²`` along a direction, if step lengths agree on one."""
    moved = parts_of(direction, params)
    kept = [parameter.detach().clone() for parameter in params]

    def at(length: float) -> float:
        with torch.no_grad():
            for parameter, step, origin in zip(params, moved, kept, strict=True):
                parameter.copy_(origin + length * step)
        return float(loss().detach().double())  # with gradients: a loss may take some of its own

    with differentiable_twice(), unseen_writes(params):
        try:
            here = at(0.0)
            rounding = torch.finfo(params[0].dtype).eps * max(abs(here), 1.0)
            # the bend should be a thousand roundings of the loss, and is made two and four times as large
            shortest = (1e3 * rounding / max(abs(expected), 1e-30)) ** 0.5
            found: list[float] = []
            for factor in (1.0, 1.4, 2.0, 2.8):
                length = factor * shortest
                found.append((at(length) - 2 * here + at(-length)) / length**2)
        finally:
            with torch.no_grad():
                for parameter, origin in zip(params, kept, strict=True):
                    parameter.copy_(origin)
    middle = statistics.median(found)
    return middle if all(abs(one - middle) <= AGREEMENT * abs(middle) for one in found) else None


def first_line(error: Exception) -> str:
    """What an error says, without the advice that torch puts below."""
    return str(error).split("\n")[0].rstrip(".")
