"""`GradientReader`: the gradients at each optimizer step, read on their device; nothing waits for it until `collect`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch

from lightning_ww.gradients.layers import LayerWithoutGradients, ParametersOfLayer
from lightning_ww.gradients.metrics import GRADIENT_METRICS
from lightning_ww.gradients.report import GradientReport, LayerGradients

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.hooks import RemovableHandle

NO_STEP = "no optimizer step has been made since the last measurement"
NO_GRADIENT = "no gradient has reached it"
NOT_CLOSE = "the step before the measurement could not be foretold"
ZERO = "its parameters are zero"


FOLDED = 256
"""The number of steps whose norms are kept and summed up at a time: for a step alone, it would be many small operations."""


@dataclass
class _Seen:
    """What was seen of some parameters on one device."""

    places: tuple[int, ...]  # of the parameters
    layers: list[int]  # that they belong to
    owner: Tensor  # for each parameter, the place of its layer in `layers`
    highest: Tensor  # ‖g‖ of each layer
    whole: Tensor  # the highest norm of all of them together, 0-d
    num_bad: Tensor  # steps that were not finite, 0-d
    steps: list[Tensor]  # ‖g‖ of each parameter, at the steps that are not summed up
    zeros: Tensor | None = None  # of each parameter, as the next two
    bad: Tensor | None = None
    before: list[Tensor] | None = None  # copies of the parameters

    def fold(self) -> None:
        """Sum up all steps but the last one's own norms."""
        norms_of = torch.stack(self.steps)
        squares = norms_of.square()
        by_layer = squares.new_zeros(len(squares), len(self.layers)).index_add(1, self.owner, squares).sqrt()
        whole = squares.sum(1).sqrt()
        self.highest = torch.maximum(self.highest, _finite(by_layer).amax(0))
        self.whole = torch.maximum(self.whole, _finite(whole).max())
        self.num_bad = self.num_bad + (~torch.isfinite(whole)).sum()
        self.steps = self.steps[-1:]


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
        >>> reader.observe(model.parameters(), closely=True)
        >>> optimizer.step()
        >>> layer = reader.collect().layers[0]
        >>> round(layer.norm, 4), layer.zero_share
        (3.1623, 0.0)
    """

    def __init__(self, layers: Sequence[ParametersOfLayer], skipped: Sequence[LayerWithoutGradients] = ()) -> None:
        self.layers, self._skipped = list(layers), tuple(skipped)
        self._parameters = [parameter for layer in self.layers for parameter in layer.parameters]
        self._owners = [i for i, layer in enumerate(self.layers) for _ in layer.parameters]
        self._places = {id(parameter): i for i, parameter in enumerate(self._parameters)}
        self._seen: dict[tuple[int, ...], _Seen] = {}
        self._reached: list[int] = []  # layers in the order in which a backward pass has reached them
        self._handles: list[RemovableHandle] = []

    def listen(self) -> None:
        """Learn from the next backward pass in which order the layers follow each other, unless it is known."""
        if self._reached or self._handles:
            return
        for owner, parameter in zip(self._owners, self._parameters, strict=True):
            hook = partial(self._hear, owner)
            self._handles.append(parameter.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]

    def _hear(self, layer: int, parameter: Tensor) -> None:
        if layer not in self._reached:
            self._reached.append(layer)

    def hush(self) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def observe(self, parameters: Iterable[Tensor], *, scale: Tensor | None = None, closely: bool = False) -> None:
        """Look at the gradients before an optimizer step.

        Args:
            parameters: The parameters of the optimizer.
            scale: The factor, 0-d, by which the gradients are too large. Default: ``None``, none.
            closely: Whether to count zeros, and to keep a copy of the parameters until `collect`. Default: ``False``.
        """
        self.hush()
        by_device: defaultdict[torch.device, list[int]] = defaultdict(list)
        for parameter in parameters:
            place = self._places.get(id(parameter))
            if place is not None and parameter.grad is not None:
                by_device[parameter.device].append(place)
        for places in by_device.values():
            own = [self._parameters[place] for place in places]
            gradients = [_dense(parameter.grad) for parameter in own if parameter.grad is not None]
            latest = norms(gradients)
            if scale is not None:
                latest = latest / scale.to(latest)
            seen = self._seen.get(key := tuple(places))
            if seen is None:
                seen = self._seen[key] = self._unseen(key, latest)
            seen.steps.append(latest)
            if len(seen.steps) > FOLDED:
                last = seen.steps.pop()
                seen.fold()
                seen.steps = [last]
            if closely:
                pairs = zip(own, gradients, strict=True)  # what a sparse gradient leaves out is zero, too
                seen.zeros = torch.stack([p.numel() - torch.count_nonzero(g) for p, g in pairs])
                seen.bad = torch.stack([(~torch.isfinite(g)).sum() for g in gradients])
                seen.before = [parameter.detach().clone() for parameter in own]
            else:
                seen.zeros = seen.bad = seen.before = None

    def _unseen(self, places: tuple[int, ...], like: Tensor) -> _Seen:
        owners = [self._owners[place] for place in places]
        layers = sorted(set(owners))
        owner = torch.tensor([layers.index(one) for one in owners], device=like.device)
        none = like.new_zeros(())
        return _Seen(places, layers, owner, like.new_zeros(len(layers)), none, none, [])

    def collect(self) -> GradientReport:
        """Report what was seen since the last call, and forget it."""
        parameters = self._parameters
        numbers: list[dict[str, float]] = [{} for _ in parameters]
        highest: defaultdict[int, float] = defaultdict(float)
        whole, num_bad = 0.0, 0.0
        for seen in self._seen.values():
            own = [parameters[place] for place in seen.places]
            seen.fold()
            rows = {"norm": seen.steps[-1]}
            if seen.zeros is not None and seen.bad is not None and seen.before is not None:
                moved = [now.detach() - before for now, before in zip(own, seen.before, strict=True)]
                rows |= {"zeros": seen.zeros, "bad": seen.bad, "update_norm": norms(moved)}
                left = [parameter.grad for parameter in own]
                if all(gradient is not None for gradient in left):
                    rows["clipped_norm"] = norms([_dense(gradient) for gradient in left if gradient is not None])
            host = torch.stack([row.to(torch.float64) for row in rows.values()]).tolist()
            for name, values in zip(rows, host, strict=True):
                for place, value in zip(seen.places, values, strict=True):
                    numbers[place][name] = value
            for layer, high in zip(seen.layers, seen.highest.tolist(), strict=True):
                highest[layer] = max(highest[layer], high)
            high, bad = torch.stack([seen.whole, seen.num_bad.to(seen.whole)]).tolist()
            whole, num_bad = max(whole, high), max(num_bad, bad)
        for places in _on_one_device(parameters):
            weights = [parameters[place].detach() for place in places]
            largest = norms(weights, order=float("inf"))
            for place, l2, most in zip(places, norms(weights).tolist(), largest.tolist(), strict=True):
                numbers[place] |= {"weight_norm": l2, "weight_max": most}
        has_step, self._seen = bool(self._seen), {}
        rows_of = iter(numbers)
        depths = {layer: depth for depth, layer in enumerate(reversed(self._reached))}
        layers = tuple(
            _layer(layer, [next(rows_of) for _ in layer.parameters], highest.get(i), depths.get(i), has_step=has_step)
            for i, layer in enumerate(self.layers)
        )
        summary = _numbers(numbers, [parameter.numel() for parameter in parameters])
        if has_step:
            summary |= {"highest_norm": whole, "num_nonfinite_steps": num_bad}
        return GradientReport(
            layers, self._skipped, {k: v for k, v in summary.items() if v is not None and isfinite(v)}
        )


def norms(tensors: Sequence[Tensor], order: float = 2.0) -> Tensor:
    """The norm of each of these tensors on one device, shape ``(tensors,)``, in float32 at least."""
    if all(tensor.dtype == torch.float32 and tensor.numel() for tensor in tensors):
        return torch.stack(torch._foreach_norm(list(tensors), order))
    found = []
    for tensor in tensors:
        plain = tensor.abs() if tensor.is_complex() else tensor
        wide = torch.promote_types(plain.dtype, torch.float32)
        norm = torch.linalg.vector_norm(plain, order, dtype=wide) if plain.numel() else plain.new_zeros(())
        found.append(norm.to(torch.float64))
    return torch.stack(found)


def _finite(values: Tensor) -> Tensor:
    """The values, with 0 in place of those that are not finite."""
    return torch.where(torch.isfinite(values), values, 0.0)


def _dense(gradient: Tensor) -> Tensor:
    """The values of a gradient; of a sparse one, those that it has."""
    gradient = gradient.detach()
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _on_one_device(parameters: Sequence[Tensor]) -> list[list[int]]:
    places: defaultdict[torch.device, list[int]] = defaultdict(list)
    for place, parameter in enumerate(parameters):
        places[parameter.device].append(place)
    return list(places.values())


def _numbers(rows: Sequence[dict[str, float]], sizes: Sequence[int]) -> dict[str, float | None]:
    """The numbers of some parameters together, from those of each and their sizes."""

    def known(name: str) -> list[float]:
        return [row[name] for row in rows if name in row]

    def norm(name: str) -> float | None:
        return sum(value**2 for value in known(name)) ** 0.5 if known(name) else None

    seen = sum(size for size, row in zip(sizes, rows, strict=True) if "zeros" in row)
    whole, clipped, weight, update = (norm(name) for name in ("norm", "clipped_norm", "weight_norm", "update_norm"))
    return {
        "norm": whole,
        "clip_factor": clipped / whole if clipped and whole else None,  # zero: it was set to zero since
        "update_ratio": update / weight if update is not None and weight else None,
        "zero_share": sum(known("zeros")) / seen if seen else None,
        "nonfinite_share": sum(known("bad")) / seen if seen else None,
        "weight_norm": weight,
        "weight_max": max(known("weight_max"), default=None),
    }


def _layer(
    layer: ParametersOfLayer,
    rows: Sequence[dict[str, float]],
    highest: float | None,
    depth: int | None,
    *,
    has_step: bool,
) -> LayerGradients:
    """The numbers of a layer, from those of its parameters."""
    sizes = [parameter.numel() for parameter in layer.parameters]
    numbers = {**_numbers(rows, sizes), "highest_norm": highest}
    missing = NO_STEP if not has_step else NO_GRADIENT if numbers["norm"] is None else NOT_CLOSE
    reasons = {name: missing for name, value in numbers.items() if value is None}
    if numbers["weight_norm"] == 0 and numbers["zero_share"] is not None:
        reasons["update_ratio"] = ZERO
    for name, value in numbers.items():
        if value is not None and not isfinite(value):
            reasons[name], numbers[name] = f"not finite ({value})", None
    named: dict[str, Any] = {name: numbers[name] for name in GRADIENT_METRICS}
    reasons = {name: reasons[name] for name in GRADIENT_METRICS if name in reasons}
    return LayerGradients(
        name=layer.name,
        kind=layer.kind,
        num_elements=sum(sizes),
        is_embedding=layer.is_embedding,
        depth=depth,
        reasons=reasons,
        **named,
    )
