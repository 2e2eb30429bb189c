"""`GradientReader`: the gradients at each optimizer step, read on their device; nothing waits for it until `collect`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isfinite, nan
from typing import TYPE_CHECKING

import torch

from lightning_ww.gradients.layers import ParametersOfLayer, SkippedLayerGradients
from lightning_ww.gradients.report import GradientReport
from lightning_ww.gradients.summing import layer_of, numbers_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.hooks import RemovableHandle

FOLDED = 256
"""The number of steps whose norms are kept and summed up at a time: for a step alone, it would be many small operations."""


@dataclass
class _Device:
    """The parameters on one device, and the norms of their gradients step by step."""

    places: list[int]  # of the parameters, among all
    layers: list[int]  # that they belong to
    owner: Tensor  # for each parameter, the place of its layer in `layers`
    highest: Tensor  # ‖g‖ of each layer at its highest finite step; -1 before the first one
    columns: dict[int, int]  # of the places, in the rows
    steps: list[int] = field(default_factory=list)  # the numbers of the steps that are not summed up
    rows: list[Tensor] = field(default_factory=list)  # ‖g‖ of each parameter at these, 0 where there was none
    wholes: dict[int, Tensor] = field(default_factory=dict)  # ‖g‖² of all, by step
    orders: dict[tuple[int, ...], Tensor] = field(default_factory=dict)  # places of some parameters, as tensors

    def add(self, step: int, columns: tuple[int, ...], norms_of: Tensor) -> None:
        """Add the norms of some parameters at a step; later ones of the same step take the place of earlier ones."""
        if len(columns) < len(self.places):
            if columns not in self.orders:
                self.orders[columns] = torch.tensor(columns, device=norms_of.device)
            is_same = bool(self.steps) and self.steps[-1] == step
            before = self.rows[-1] if is_same else norms_of.new_zeros(len(self.places))
            norms_of = before.to(norms_of).index_copy(0, self.orders[columns], norms_of)
        if self.steps and self.steps[-1] == step:
            self.rows[-1] = norms_of
        else:
            if len(self.rows) >= FOLDED:
                self.fold()
            self.steps.append(step)
            self.rows.append(norms_of)

    def fold(self) -> None:
        """Sum up all steps."""
        if not self.rows:
            return
        wide = torch.float32 if self.owner.device.type == "mps" else torch.float64
        squares = torch.stack(self.rows).to(wide).square()
        by_layer = squares.new_zeros(len(squares), len(self.layers)).index_add(1, self.owner, squares).sqrt()
        usable = torch.where(torch.isfinite(by_layer), by_layer, -1.0)
        self.highest = torch.maximum(self.highest.to(wide), usable.amax(0))
        self.wholes |= dict(zip(self.steps, squares.sum(1).unbind(), strict=True))
        self.steps, self.rows = [], []


@dataclass
class _Close:
    """Parameters that are looked at closely at a step: their copies before it, and what was seen after it."""

    places: list[int]
    before: list[Tensor]
    zeros: Tensor
    bad: Tensor
    rows: dict[str, Tensor] = field(default_factory=dict)


class GradientReader:
    """The norms of the layers' gradients at each step, and more at steps that are looked at closely.

    Args:
        layers: The layers.
        skipped: Those that are left out. Default: none.

    Example:
        >>> from torch import nn
        >>> from lightning_ww.gradients.layers import layers_of
        >>> model = nn.Linear(4, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> reader = GradientReader(*layers_of(model))
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> reader.observe(model.parameters(), step=0, closely=True)
        >>> optimizer.step()
        >>> reader.finish(model.parameters())
        >>> layer = reader.collect().layers[0]
        >>> round(layer.norm, 4), layer.zero_share
        (3.1623, 0.0)
    """

    def __init__(self, layers: Sequence[ParametersOfLayer], skipped: Sequence[SkippedLayerGradients] = ()) -> None:
        self.layers, self._skipped = list(layers), tuple(skipped)
        self._parameters = [parameter for layer in self.layers for parameter in layer.parameters]
        self._owners = [i for i, layer in enumerate(self.layers) for _ in layer.parameters]
        self._places = {id(parameter): i for i, parameter in enumerate(self._parameters)}
        self._devices: dict[torch.device, _Device] = {}
        self._close: list[_Close] = []
        self._last: int | None = None  # the number of the last step
        self._had: set[int] = set()  # the parameters with a gradient at it
        self._reached: list[int] = []  # layers in the order in which backward passes have reached them
        self._handles: dict[int, RemovableHandle] = {}

    # ── The order of the layers

    def record_order(self) -> None:
        """Learn from backward passes in which order the layers follow each other, until each was reached once."""
        if len(self._reached) == len(self.layers):
            return
        for place, (owner, parameter) in enumerate(zip(self._owners, self._parameters, strict=True)):
            if owner not in self._reached and place not in self._handles:
                hook = partial(self._reach, owner, place)
                handle = parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
                self._handles[place] = handle

    def _reach(self, layer: int, place: int, parameter: Tensor) -> None:
        if layer not in self._reached:
            self._reached.append(layer)
        self._handles.pop(place).remove()

    def remove_hooks(self) -> None:
        """Remove the hooks from the parameters."""
        for handle in self._handles.values():
            handle.remove()
        self._handles = {}

    # ── Steps

    def observe(
        self, parameters: Iterable[Tensor], *, step: int, scale: Tensor | None = None, closely: bool = False
    ) -> None:
        """Look at the gradients before an optimizer step; `finish` looks again after it.

        Args:
            parameters: The parameters of the optimizer.
            step: The number of the step, or of the batch, if several optimizers step at it: what they hold is put together.
            scale: The factor, 0-d, by which the gradients are too large. Default: ``None``, none.
            closely: Whether to count zeros, and to keep a copy of the parameters. Default: ``False``.
        """
        if step != self._last:
            self._last, self._had, self._close = step, set(), []
        by_device: defaultdict[torch.device, list[int]] = defaultdict(list)
        for parameter in parameters:
            place = self._places.get(id(parameter))
            if place is not None and parameter.grad is not None:
                by_device[parameter.device].append(place)
        for device, places in by_device.items():
            own = [self._parameters[place] for place in places]
            gradients = [_dense(parameter.grad) for parameter in own if parameter.grad is not None]
            latest = norms(gradients)
            if scale is not None:
                latest = latest / scale.to(latest)
            one = self._device(device)
            one.add(step, tuple(one.columns[place] for place in places), latest)
            self._had |= set(places)
            if closely and not any(set(places) & set(seen.places) for seen in self._close):
                pairs = zip(own, gradients, strict=True)  # what a sparse gradient leaves out is zero, too
                zeros = torch.stack([p.numel() - torch.count_nonzero(g) for p, g in pairs])
                bad = torch.stack([(~torch.isfinite(g)).sum() for g in gradients])
                self._close.append(_Close(places, [p.detach().clone() for p in own], zeros, bad))

    def _device(self, device: torch.device) -> _Device:
        if device not in self._devices:
            places = [i for i, parameter in enumerate(self._parameters) if parameter.device == device]
            owners = [self._owners[place] for place in places]
            layers = sorted(set(owners))
            owner = torch.tensor([layers.index(one) for one in owners], device=device)
            highest = torch.full((len(layers),), -1.0, device=device)
            columns = {place: i for i, place in enumerate(places)}
            self._devices[device] = _Device(places, layers, owner, highest, columns)
        return self._devices[device]

    def finish(self, parameters: Iterable[Tensor]) -> None:
        """Look at the update and at what is left of the gradients, right after an optimizer step."""
        known = {self._places.get(id(parameter)) for parameter in parameters}
        for seen in self._close:
            if not seen.before or not known.issuperset(seen.places):
                continue
            own = [self._parameters[place] for place in seen.places]
            moved = [now.detach() - before for now, before in zip(own, seen.before, strict=True)]
            seen.rows["update_norm"] = norms(moved)
            seen.rows["stepped_norm"] = norms([parameter.detach() for parameter in own])
            left = [parameter.grad for parameter in own if parameter.grad is not None]
            if len(left) == len(own):
                seen.rows["clipped_norm"] = norms([_dense(gradient) for gradient in left])
            seen.before = []  # the copies are not needed any more

    # ── Reports

    def collect(self) -> GradientReport:
        """Report what was seen since the last call, and forget it."""
        parameters, last = self._parameters, self._last
        numbers: list[dict[str, float]] = [{} for _ in parameters]
        highest: defaultdict[int, float] = defaultdict(lambda: nan)
        wholes: defaultdict[int, float] = defaultdict(float)
        for one in self._devices.values():
            if one.rows and one.steps[-1] == last:
                for place, value in zip(one.places, one.rows[-1].tolist(), strict=True):
                    if place in self._had:
                        numbers[place]["norm"] = value
            one.fold()
            for layer, high in zip(one.layers, one.highest.tolist(), strict=True):
                highest[layer] = high if not high <= highest[layer] else highest[layer]
            if one.wholes:
                squares = torch.stack(list(one.wholes.values())).tolist()
                for step, square in zip(one.wholes, squares, strict=True):
                    wholes[step] += square
        for seen in self._close:
            rows = {"zeros": seen.zeros, "bad": seen.bad, **seen.rows}
            host = [row.cpu().to(torch.float64).tolist() for row in rows.values()]
            for name, values in zip(rows, host, strict=True):
                for place, value in zip(seen.places, values, strict=True):
                    numbers[place][name] = value
        self._weigh(numbers)
        finite = [square**0.5 for square in wholes.values() if isfinite(square)]
        summary = numbers_of(numbers, [parameter.numel() for parameter in parameters])
        if wholes:
            summary |= {"highest_norm": max(finite, default=None), "num_nonfinite_steps": len(wholes) - len(finite)}
        depths = {layer: depth for depth, layer in enumerate(reversed(self._reached))}
        rows_of = iter(numbers)
        layers = tuple(
            layer_of(layer, [next(rows_of) for _ in layer.parameters], highest[i], depths.get(i), has_step=bool(wholes))
            for i, layer in enumerate(self.layers)
        )
        self._devices, self._close, self._last, self._had = {}, [], None, set()
        return GradientReport(
            layers, self._skipped, {k: v for k, v in summary.items() if v is not None and isfinite(v)}
        )

    def _weigh(self, numbers: list[dict[str, float]]) -> None:
        """Add the norms of the parameters themselves."""
        by_device: defaultdict[torch.device, list[int]] = defaultdict(list)
        for place, parameter in enumerate(self._parameters):
            by_device[parameter.device].append(place)
        for places in by_device.values():
            weights = [self._parameters[place].detach() for place in places]
            largest = norms(weights, order=float("inf"))
            for place, l2, most in zip(places, norms(weights).tolist(), largest.tolist(), strict=True):
                numbers[place] |= {"weight_norm": l2, "weight_max": most}


def norms(tensors: Sequence[Tensor], order: float = 2.0) -> Tensor:
    """The norm of each of these tensors on one device, shape ``(tensors,)``, in float32 at least."""
    if all(tensor.dtype == torch.float32 and tensor.numel() for tensor in tensors):
        return torch.stack(torch._foreach_norm(list(tensors), order))
    found = []
    for tensor in tensors:
        plain = tensor.abs() if tensor.is_complex() else tensor
        wide = torch.promote_types(plain.dtype, torch.float32)
        norm = torch.linalg.vector_norm(plain, order, dtype=wide) if plain.numel() else plain.new_zeros((), dtype=wide)
        found.append(norm)
    widest = torch.float64 if any(norm.dtype == torch.float64 for norm in found) else torch.float32
    return torch.stack([norm.to(widest) for norm in found])


def _dense(gradient: Tensor) -> Tensor:
    """The values of a gradient; of a sparse one, those that it has."""
    gradient = gradient.detach()
    return gradient.coalesce().values() if gradient.is_sparse else gradient
