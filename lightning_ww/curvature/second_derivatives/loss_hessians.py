"""The Hessian of a loss with respect to its outputs: in closed form for three usual losses, else by autograd."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lightning_ww import _checks

Product = Callable[[Tensor], Tensor]
"""A function that multiplies ``∇²ℓ(z)`` by a vector of the outputs' shape."""


@dataclass(frozen=True)
class LossCall:
    """One call of a loss function, as torch saw it."""

    function: Callable[..., Tensor]
    arguments: Mapping[str, Any]  # by name, defaults filled in
    result: Tensor

    @property
    def outputs(self) -> Tensor:
        """The outputs that the loss was called with."""
        return self.arguments["input"]  # type: ignore[no-any-return]

    @property
    def is_of_outputs_alone(self) -> bool:
        """Tell whether all other arguments are constants, unlike a target that depends on the weights."""
        others = [value for name, value in self.arguments.items() if name != "input"]
        return not any(isinstance(value, Tensor) and value.requires_grad for value in others)

    def of(self, outputs: Tensor) -> Tensor:
        """The loss of other outputs, with all other arguments unchanged."""
        return self.function(**{**self.arguments, "input": outputs})


class LossCalls(TorchFunctionMode):
    """A mode that collects the calls of `cross_entropy`, `mse_loss`, `binary_cross_entropy_with_logits`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[LossCall] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _CLOSED_FORMS:
            bound = inspect.signature(func).bind(*args, **(kwargs or {}))
            bound.apply_defaults()
            self.seen.append(LossCall(func, bound.arguments, result))
        return result


def hessian_of(loss: Callable[[Tensor], Tensor], outputs: Tensor) -> Product:
    """The multiplication by the Hessian, ``∇²ℓ(z)·``, at these outputs, without the matrix."""
    leaf = outputs.detach().requires_grad_()
    with LossCalls() as calls:
        value = loss(leaf)
    if value.ndim:
        raise _checks.unfit_object("GGNOperator", "loss", "a 0-d tensor", f"one of shape {tuple(value.shape)}")
    if len(calls.seen) == 1 and calls.seen[0].result is value and calls.seen[0].outputs is leaf:
        call = calls.seen[0]
        if call.is_of_outputs_alone:
            with torch.no_grad():
                product = _CLOSED_FORMS[call.function](leaf.detach(), call.arguments)
            if product is not None:
                return product
    (slope,) = torch.autograd.grad(value, leaf, create_graph=True)
    if not slope.requires_grad:  # a loss that is linear in the outputs
        return torch.zeros_like

    def by_autograd(vector: Tensor) -> Tensor:
        return torch.autograd.grad(slope, leaf, vector, retain_graph=True)[0]

    return by_autograd


def _cross_entropy(z: Tensor, arguments: Mapping[str, Any]) -> Product | None:
    """The Hessian ``cᵢ (diag p − p pᵀ)``, where cᵢ is the weight of sample i's target in the mean or sum."""
    if not _is_plain(arguments):
        return None
    axis = 0 if z.ndim == 1 else 1
    p = z.softmax(axis)
    classes, smoothing, target = z.shape[axis], arguments["label_smoothing"], arguments["target"]
    weight = arguments["weight"] if arguments["weight"] is not None else torch.ones(classes).to(z)
    if target.is_floating_point():
        along = weight.reshape([-1 if i == axis else 1 for i in range(z.ndim)])
        share = ((target * (1 - smoothing) + smoothing / classes) * along).sum(axis)
        total = torch.tensor(float(share.numel())).to(z)
    else:
        kept = target != arguments["ignore_index"]
        own = torch.where(kept, weight[torch.where(kept, target, 0).long()], 0.0)
        share = torch.where(kept, (1 - smoothing) * own + smoothing / classes * weight.sum(), 0.0)
        total = own.sum()
    scaled = p * (share / total if arguments["reduction"] == "mean" else share).unsqueeze(axis)
    return lambda u: scaled * (u - (p * u).sum(axis, keepdim=True))


def _mse(z: Tensor, arguments: Mapping[str, Any]) -> Product | None:
    if not _is_plain(arguments) or arguments.get("weight") is not None or arguments["target"].shape != z.shape:
        return None
    factor = 2 / z.numel() if arguments["reduction"] == "mean" else 2.0
    return lambda u: factor * u


def _bce_with_logits(z: Tensor, arguments: Mapping[str, Any]) -> Product | None:
    """The diagonal Hessian ``w (1 + (p₊ − 1) y) σ(z) (1 − σ(z))``, where p₊ is the weight of positives."""
    if not _is_plain(arguments):
        return None
    p, positive = z.sigmoid(), arguments["pos_weight"]
    second = p * (1 - p)
    if positive is not None:
        second = second * (1 + (positive - 1) * arguments["target"])
    if arguments["weight"] is not None:
        second = second * arguments["weight"]
    if arguments["reduction"] == "mean":
        second = second / z.numel()
    return lambda u: second * u


def _is_plain(arguments: Mapping[str, Any]) -> bool:
    """Tell whether no argument that torch deprecates is used, and the loss is reduced to a number."""
    return arguments["size_average"] is None and arguments["reduce"] is None and arguments["reduction"] != "none"


_CLOSED_FORMS: dict[Any, Callable[[Tensor, Mapping[str, Any]], Product | None]] = {
    functional.cross_entropy: _cross_entropy,
    functional.mse_loss: _mse,
    functional.binary_cross_entropy_with_logits: _bce_with_logits,
}
