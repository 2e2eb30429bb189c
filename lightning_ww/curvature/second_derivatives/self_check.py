"""Checks of autograd's derivatives of a loss, which can be wrong without an error."""

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
"""The most roundings by which ⟨v, H(Hv)⟩ and ‖Hv‖² may differ; if H is wrong, they differ by far more."""

DISAGREEMENT = 0.15
"""The relative error beyond which a second difference of the loss contradicts autograd; kinks (ReLU) cause up to 0.1."""

AGREEMENT = 0.02
"""Second differences count as the second derivative if those of several step lengths agree to this relative error."""

REPEATED = 1e-4
"""The relative difference between two evaluations of a loss beyond which it is random."""


def check_gradient(loss: Callable[[], Tensor], params: Sequence[Tensor]) -> None:
    """Raise if `torch.autograd.grad` does not give the gradients of a plain backward pass; costs one gradient more.

    The result of a reentrant checkpoint is not connected to its layers' parameters until it is computed again. So
    `torch.autograd.grad` gives zero for these parameters.

    Args:
        loss: A function ``() -> 0-d tensor`` of the current weights.
        params: Leaves whose ``.grad`` nothing else reads; it is lost.

    Raises:
        NotFiniteError: If the loss is not finite. It is a `ValueError`.
        WrongDerivativeError: If the gradients differ.
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
            "`torch.autograd.grad` does not give the gradients of a backward pass, as with reentrant checkpoints "
            "(`use_reentrant=True`)"
        )


def check_second_derivatives(loss: Callable[[], Tensor], params: Sequence[Tensor], *, seed: int = 0) -> None:
    """Raise if second derivatives of the loss are wrong; costs about ten gradients.

    Three faults raise no error by themselves: under `torch.autograd.grad`, a backward that is differentiable only once;
    a function that gives different results for equal inputs; a custom function whose backward uses values that autograd
    does not see. They are detected by a backward pass to the leaves, by the symmetry of H, and by a second difference of
    the loss along the direction of largest curvature (if several step lengths agree, since a loss may have kinks).

    Args:
        loss: A function ``() -> 0-d tensor`` of the current weights.
        params: Leaves that nothing else reads; they are changed, and restored to the last bit. Their ``.grad`` is lost.
        seed: The seed of the directions. Default: ``0``.

    Raises:
        WrongDerivativeError: If second derivatives are wrong; the message names the fault.
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
    # ⟨v, H(Hv)⟩ = ‖Hv‖²: with independent vectors and many parameters, both sides would be close to zero
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
            f"autograd's second derivative of the loss along one direction is {largest:.4g}, but by finite "
            f"differences it is {measured:.4g}: part of the loss is detached, or a custom function's backward uses "
            "values that autograd does not see"
        )


def _second_difference(
    loss: Callable[[], Tensor], params: Sequence[Tensor], direction: Tensor, expected: float
) -> float | None:
    """The second difference ``d²L/dt²`` along a direction, or ``None`` if different step lengths disagree."""
    moved = parts_of(direction, params)
    kept = [parameter.detach().clone() for parameter in params]

    def at(length: float) -> float:
        with torch.no_grad():
            for parameter, step, origin in zip(params, moved, kept, strict=True):
                parameter.copy_(origin + length * step)
        return float(loss().detach().double())  # not without gradients: a loss may need them itself

    with differentiable_twice(), unseen_writes(params):
        try:
            here = at(0.0)
            rounding = torch.finfo(params[0].dtype).eps * max(abs(here), 1.0)
            # the second difference should be a thousand roundings of the loss, and more with longer steps
            shortest = (1e3 * rounding / max(abs(expected), 1e-30)) ** 0.5
            estimates: list[float] = []
            for factor in (1.0, 1.4, 2.0, 2.8):
                length = factor * shortest
                estimates.append((at(length) - 2 * here + at(-length)) / length**2)
        finally:
            with torch.no_grad():
                for parameter, origin in zip(params, kept, strict=True):
                    parameter.copy_(origin)
    middle = statistics.median(estimates)
    return middle if all(abs(estimate - middle) <= AGREEMENT * abs(middle) for estimate in estimates) else None


def first_line(error: Exception) -> str:
    """The first line of an error's message, without the advice that torch puts below."""
    return str(error).split("\n")[0].rstrip(".")
