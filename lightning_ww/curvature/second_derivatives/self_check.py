"""Checks of autograd's derivatives of a loss, which can be wrong without an error."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_ww.curvature.operators import (
    HessianOperator,
    WrongDerivativeError,
    gradient,
    parts_of,
    real,
    unseen_writes,
)
from lightning_ww.curvature.second_derivatives.context import by_torch_itself, differentiable_twice
from lightning_ww.curvature.second_derivatives.lookups import moved_from

ASYMMETRY = 1e4
"""The most roundings by which ⟨v, H(Hv)⟩ and ‖Hv‖² may differ; if H is wrong, they differ by far more."""

DISAGREEMENT, ROUGH = 0.01, 0.15
"""The relative errors beyond which differences contradict autograd, in float64 and in the loss's own precision."""

AGREEMENT = 0.02
"""Differences count as the derivative if those of several step lengths agree to this relative error."""

FINE, COARSE = 1e6, 1e3
"""The roundings of a gradient that its difference should be in float64, and those of a loss in its own precision."""

REPEATED = 1e-4
"""The relative difference between two evaluations of a loss beyond which it is random."""

Precise = Callable[[], AbstractContextManager[tuple[Callable[[], Tensor], Sequence[Tensor]]]]
"""A function that opens a loss and its parameters in float64."""


def check_gradient(value: Tensor, slope: Tensor, params: Sequence[Tensor], left_out: Sequence[Tensor] = ()) -> None:
    """Raise if a gradient is not that of a plain backward pass, which this makes.

    The result of a reentrant checkpoint is not connected to its layers' parameters until it is computed again. So
    `torch.autograd.grad` gives zero for these parameters.

    Args:
        value: A loss, a 0-d tensor with its graph.
        slope: Its gradient by `torch.autograd.grad`, flat.
        params: Leaves whose ``.grad`` nothing else reads; it is lost.
        left_out: Further such leaves, which the loss is said not to depend on. Default: none.

    Raises:
        WrongDerivativeError: If the gradients differ.
    """
    with differentiable_twice():
        plain = _by_backward(value, None, [*params, *left_out])
    number = slope.numel()
    difference = ((plain[:number] - slope).norm() ** 2 + plain[number:].norm() ** 2) ** 0.5
    if not difference <= ASYMMETRY * torch.finfo(plain.dtype).eps * plain.norm():
        raise WrongDerivativeError(
            "`torch.autograd.grad` does not give the gradients of a backward pass, as with reentrant checkpoints "
            "(`use_reentrant=True`)"
        )


def _by_backward(value: Tensor, weight: Tensor | None, leaves: Sequence[Tensor]) -> Tensor:
    """The gradient of ``⟨value, weight⟩`` by a backward pass to all leaves, flat; the leaves' ``.grad`` is lost."""
    try:
        torch.autograd.backward(value, weight, retain_graph=True)  # without `inputs`, which would hide faults
        return torch.cat([real(torch.zeros_like(p) if p.grad is None else p.grad.detach()).reshape(-1) for p in leaves])
    finally:
        for leaf in leaves:
            leaf.grad = None


def check_repeated(first: float, second: float) -> None:
    """Raise if two evaluations of a loss on the same batch differ.

    Raises:
        WrongDerivativeError: If they do.
    """
    if differ(first, second):
        raise WrongDerivativeError(f"the loss is not the same twice ({first:.6g}, then {second:.6g})")


def differ(first: float, second: float) -> bool:
    """Tell whether two values of a loss differ by more than rounding, or are not finite."""
    return not abs(first - second) <= REPEATED * max(abs(first), abs(second))


def check_second_derivatives(
    loss: Callable[[], Tensor],
    params: Sequence[Tensor],
    *,
    operator: HessianOperator | None = None,
    kept: Sequence[bool] | None = None,
    differences: bool = True,
    precise: Precise | None = None,
    is_part: bool = False,
    seed: int = 0,
) -> None:
    """Raise if second derivatives of the loss are wrong; costs about five gradients, and what the differences cost.

    The five are a backward pass and two products with the Hessian. In float64, the differences cost two or three gradients,
    each of which takes twice as long, with convolutions eight times; with ``is_part``, they and a product of a few samples.
    In the loss's own precision, they cost one more product, and nine values of the loss.

    Three faults raise no error by themselves: under `torch.autograd.grad`, a backward that is differentiable only once;
    a function that gives different results for equal inputs; a custom function whose backward uses values that autograd
    does not see, or a part of the loss that is detached. They are detected by a backward pass to the leaves, by the
    symmetry of H, and by differences of gradients along the direction of largest curvature. A loss with kinks (ReLU) has
    differences that are not its derivative's, unless the step is so short that there is no kink within, which needs float64.
    The loss is refused only if two witnesses agree: differences of two lengths.

    Args:
        loss: A function ``() -> 0-d tensor`` of the current weights.
        params: Leaves that nothing else reads; they are changed, and restored to the last bit. Their ``.grad`` is lost.
        operator: The loss's Hessian, if it is known, of the parameters that are kept. Default: ``None``.
        kept: Whether each of the parameters is kept; the others must get no gradient. Default: ``None``, all.
        differences: Whether differences are compared, which a loss does not allow that moves other weights of its own, such
            as a target network's. Default: ``True``.
        precise: A function that opens the same loss and its parameters in float64. Default: ``None``; differences are then
            taken in the loss's own precision, which tells less.
        is_part: Whether ``precise`` opens the loss of a part of the samples, whose own products are then compared. Default:
            ``False``.
        seed: The seed of the directions. Default: ``0``.

    Raises:
        NotFiniteError: If the loss is not finite. It is a `ValueError`.
        WrongDerivativeError: If second derivatives are wrong; the message names the fault.
    """
    generator, given = torch.Generator().manual_seed(seed), list(params)
    with differentiable_twice():
        if operator is None:
            operator = HessianOperator(loss, params)
            operator.restrict(kept or operator.is_reached)
        params = operator.params
        value, slope = operator.values[0], operator.slopes[0][1]
    known = {id(parameter) for parameter in params}
    check_gradient(value, slope.detach(), params, [p for p in given if id(p) not in known])
    v = torch.randn(operator.shape[0], generator=generator, dtype=torch.float64).to(slope)
    first = torch.zeros_like(v)
    if slope.requires_grad:
        try:
            with differentiable_twice():
                first = _by_backward(slope, v, params)
        except RuntimeError as error:
            raise WrongDerivativeError(f"the gradient cannot be differentiated again ({first_line(error)})") from error
    # ⟨v, H(Hv)⟩ = ‖Hv‖²: with independent vectors and many parameters, both sides would be close to zero
    second = operator @ first
    squared = float(first.square().sum(dtype=torch.float64))
    defect = abs(float((v * second).sum(dtype=torch.float64)) - squared)
    is_symmetric = defect <= ASYMMETRY * torch.finfo(v.dtype).eps * squared
    # along an image, so that rows that get no gradient, such as an embedding's padding, are not moved
    direction, image = (first / squared**0.5, second / squared**0.5) if squared else (v / v.norm(), first)
    there, steepness = float(value.detach()), float(slope.detach().norm())
    exact = None
    if differences and precise is not None:
        scale = None if is_part else _Scale(direction, image, there, steepness)
        exact = _in_float64(precise, scale, seed)
    if exact is None or exact.is_random:  # unless float64 itself makes the difference
        check_repeated(there, _Line(loss, params, direction).loss_at(0.0))
    deviation = None if exact is None else exact.deviation
    if exact is None and differences:
        direction, largest = _steepest(operator, direction, image)
        deviation = _in_own_precision(_Line(loss, params, direction), largest)
    if not is_symmetric:
        raise WrongDerivativeError(
            "the second derivatives are not symmetric: a custom function's backward is not its forward's derivative"
        )
    if deviation is not None:
        raise WrongDerivativeError(
            f"autograd's second derivatives are {100 * deviation:.2g} % off finite differences: part of the loss is "
            "detached, or a custom function's backward uses values that autograd does not see"
        )


def _steepest(operator: HessianOperator, direction: Tensor, image: Tensor) -> tuple[Tensor, float]:
    """The direction of largest curvature in the plane of a direction and its image, and that curvature; one product."""
    along = torch.dot(direction, image)
    across = image - along * direction
    width = across.norm()
    if not width > torch.finfo(image.dtype).eps * image.norm():
        return direction, float(along)
    across /= width
    other = operator @ across
    plane = torch.stack(
        [torch.stack([along, torch.dot(across, image)]), torch.stack([width, torch.dot(across, other)])]
    )
    values, vectors = torch.linalg.eigh(((plane + plane.T) / 2).double())
    k = int(values.abs().argmax())
    weights = vectors[:, k].to(direction)
    return weights[0] * direction + weights[1] * across, float(values[k])


@dataclass(frozen=True)
class _Verdict:
    """The result of the differences in float64."""

    is_random: bool  # whether a second value of the loss differs from the first
    deviation: float | None  # the relative error of autograd's product, if it is wrong


@dataclass(frozen=True)
class _Scale:
    """A direction, what autograd's derivatives are along it, and what a step must be in proportion to."""

    direction: Tensor  # of length one, flat
    image: Tensor  # the product with it
    loss: float
    steepness: float  # the norm of the gradient
    gradient: Tensor | None = None  # in float64, if it is known


def _in_float64(precise: Precise, given: _Scale | None, seed: int) -> _Verdict | None:
    """Compare differences in float64 with autograd, or return ``None`` if the loss has no gradient there.

    Args:
        precise: A function that opens the loss in float64.
        given: The products in the loss's own precision; ``None``: the products in float64 are compared, too.
        seed: The seed of the direction of these.
    """
    try:
        with precise() as (loss, params):
            at = _own_scale(loss, params, seed) if given is None else given
            line, image = _Line(loss, params, at.direction.double()), at.image.double()
            if not (largest := float(image.norm())):
                return _Verdict(differ(line.loss_at(0.0), at.loss), None)
            # so short that hardly a kink lies within: gradients need no longer step, unlike second differences
            scale = max(at.steepness, (largest * abs(at.loss)) ** 0.5)
            length = FINE * torch.finfo(torch.float64).eps * scale / largest
            start, behind = (-length, line.gradient_at(-length)[1]) if at.gradient is None else (0.0, at.gradient)
            here, ahead = line.gradient_at(length)
            if differ(here, at.loss):
                return _Verdict(True, None)
            once = (ahead - behind) / (length - start)
            deviation = float((once - image).norm()) / max(largest, float(once.norm()))
            if deviation <= DISAGREEMENT:
                return _Verdict(False, None)
            again = (line.gradient_at(3 * length)[1] - behind) / (3 * length - start)
            agree = float((once - again).norm()) <= AGREEMENT * max(largest, float(once.norm()))
            return _Verdict(False, deviation if agree else None)
    except (RuntimeError, TypeError, NotImplementedError, ValueError):  # such as a step that needs float32
        return None


def _own_scale(loss: Callable[[], Tensor], params: Sequence[Tensor], seed: int) -> _Scale:
    """A direction and its image by the loss's own Hessian; the parameters that it does not reach stay where they are."""
    with differentiable_twice():
        operator = HessianOperator(loss, params)
        slope = operator.slopes[0][1] if operator.slopes else torch.zeros(operator.shape[0], dtype=operator.dtype)
    slope = slope.detach()
    v = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(slope)
    if slope.any():  # rows that get no gradient, such as an embedding's padding, are not moved
        v = v * (slope != 0)
    direction = v / v.norm()
    return _Scale(direction, operator @ direction, float(operator.values[0].detach()), float(slope.norm()), slope)


def _in_own_precision(line: _Line, largest: float) -> float | None:
    """The relative error of autograd's second derivative, by differences in the loss's own precision that agree."""
    here = line.loss_at(0.0)
    rounding = torch.finfo(line.direction.dtype).eps * max(abs(here), 1.0)
    if not largest:
        return None
    length = (COARSE * rounding / abs(largest)) ** 0.5
    estimates = [line.second_difference(factor * length, here) for factor in (1.0, 1.4, 2.0, 2.8)]
    middle = statistics.median(estimates)
    agree = all(abs(estimate - middle) <= AGREEMENT * abs(middle) for estimate in estimates)
    deviation = abs(middle - largest) / max(abs(middle), abs(largest))
    return deviation if agree and deviation > ROUGH else None


class _Line:
    """A loss along a line through the current weights.

    Args:
        loss: The loss, as a function of the parameters as they are.
        params: The parameters, which are moved, and put back.
        direction: The direction, of length one, flat.
    """

    def __init__(self, loss: Callable[[], Tensor], params: Sequence[Tensor], direction: Tensor) -> None:
        self._loss, self._params, self.direction = loss, params, direction
        self._steps = parts_of(direction, params)

    def loss_at(self, place: float) -> float:
        """The loss at a distance from the weights."""
        return float(self._moved(place, lambda: self._loss().detach()).double())

    def second_difference(self, length: float, here: float) -> float:
        """The second difference over a length to both sides; ``here`` is the loss at the weights."""
        return (self.loss_at(length) - 2 * here + self.loss_at(-length)) / length**2

    def gradient_at(self, place: float) -> tuple[float, Tensor]:
        """The loss and its gradient, flat, at a distance from the weights."""

        def value_and_slope() -> Tensor:
            value = self._loss()
            return torch.cat([value.detach().reshape(1), gradient(value, self._params)])

        both = self._moved(place, value_and_slope)
        return float(both[0]), both[1:]

    def _moved(self, place: float, action: Callable[[], Tensor]) -> Tensor:
        kept = [parameter.detach().clone() for parameter in self._params]
        with by_torch_itself(), unseen_writes(self._params), moved_from(self._params, kept):
            try:
                if place:
                    with torch.no_grad():
                        for parameter, step, origin in zip(self._params, self._steps, kept, strict=True):
                            parameter.copy_(origin + place * step)
                return action()  # not without gradients: a loss may need them itself
            finally:
                with torch.no_grad():
                    for parameter, origin in zip(self._params, kept, strict=True):
                        parameter.copy_(origin)


def first_line(error: Exception) -> str:
    """The first line of an error's message, without the advice that torch puts below."""
    return str(error).split("\n")[0].rstrip(".")
