"""Dead and saturated units: the outputs of activation modules in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ww import _checks
from lightning_ww._torch import plain_name

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.Threshold)
"""Modules whose units can be dead: zero for every input."""

BOUNDS = {nn.Tanh: (-1.0, 1.0), nn.Sigmoid: (0.0, 1.0), nn.Hardsigmoid: (0.0, 1.0), nn.Softsign: (-1.0, 1.0)}
"""Modules whose outputs have bounds near which gradients vanish."""

NEAR = 0.01
"""The distance from a bound, relative to the whole range, at which an output counts as saturated."""


@dataclass(frozen=True)
class Activations:
    """The outputs of one activation module."""

    name: str
    kind: str  # the module's class
    num_units: int  # channels of images, features of anything else
    dead_share: float | None  # of the units, those with an output of zero at every sample and place; only of rectifiers
    saturated_share: float | None  # of the outputs, those within 1 % of a bound; only of bounded functions
    std: float  # of all outputs


def activations(
    model: nn.Module, forward: Callable[[], Any], layers: str | Sequence[str] | None = None
) -> tuple[Activations, ...]:
    """Look at the outputs of activation modules in one forward pass, by forward hooks that are removed after it.

    Functions such as ``torch.relu`` are no modules, and are not seen. A module that is called several times counts once, with
    all its outputs.

    Args:
        model: The model.
        forward: A function that runs it once, such as ``lambda: model(batch)``; it is called without gradients.
        layers: Names or shell patterns of the activation modules. Default: all.

    Returns:
        One record for each module that was called.

    Raises:
        ArgumentError: If a pattern matches nothing. It is a `ValueError`.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with torch.no_grad():
        ...     _ = model[0].bias.fill_(-9.0)
        >>> activations(model, lambda: model(torch.ones(4, 2)))[0].dead_share
        1.0
    """
    _checks.having("activations", "forward", forward, "__call__", "a function that runs the model once")
    kinds: tuple[type[nn.Module], ...] = (*RECTIFIERS, *BOUNDS)
    modules: dict[str, nn.Module] = dict(model.named_modules())
    found = {plain_name(name): part for name, part in modules.items() if isinstance(part, kinds)}
    if layers is not None:
        wanted = _checks.matching("activations", "layers", layers, found, "activation module")
        found = {name: part for name, part in found.items() if name in wanted}
    seen: dict[str, list[Tensor]] = {name: [] for name in found}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: seen[name].append(output.detach())

    with ExitStack() as stack, torch.no_grad():
        for name, part in found.items():
            stack.callback(part.register_forward_hook(keep(name)).remove)
        forward()
    return tuple(_summed_up(name, found[name], outputs) for name, outputs in seen.items() if outputs)


def _summed_up(name: str, module: nn.Module, outputs: Sequence[Tensor]) -> Activations:
    """What a module's outputs are like."""
    rows = [_units(output).float() for output in outputs]
    same = [row for row in rows if row.shape[1] == rows[0].shape[1]]
    values = torch.cat([row.flatten() for row in rows])
    dead = saturated = None
    if isinstance(module, RECTIFIERS):
        dead = float((torch.cat(same) == 0).all(0).float().mean())
    bounds = next((ends for kind, ends in BOUNDS.items() if isinstance(module, kind)), None)
    if bounds is not None:
        low, high = bounds
        room = NEAR * (high - low)
        saturated = float(((values < low + room) | (values > high - room)).float().mean())
    spread = float(values.std()) if values.numel() > 1 else 0.0
    return Activations(name, type(module).__name__, rows[0].shape[1], dead, saturated, spread)


def _units(output: Tensor) -> Tensor:
    """The output as a matrix with a column for each unit: channels of images (four axes or more), else the last axis."""
    if output.ndim >= 4:
        return output.movedim(1, -1).reshape(-1, output.shape[1])
    return output.reshape(-1, output.shape[-1] if output.ndim > 1 else 1)
