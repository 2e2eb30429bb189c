"""The layers of a model by their parameters: a module's own ones, weight and bias together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from lightning_ww import _checks
from lightning_ww._torch import plain_name


@dataclass(frozen=True)
class ParametersOfLayer:
    """The trained parameters that belong to a module itself, without those of its children."""

    name: str  # dotted, without wrappers
    kind: str  # the module's class
    parameters: tuple[nn.Parameter, ...]
    is_embedding: bool


@dataclass(frozen=True)
class LayerWithoutGradients:
    """A layer that was left out."""

    name: str
    reason: str  # "frozen", "tied"
    sentence: str


def layers_of(
    module: nn.Module,
    layers: str | Sequence[str] | None = None,
    *,
    call: str = "GradientMonitor",
    strict: bool = True,
) -> tuple[list[ParametersOfLayer], list[LayerWithoutGradients]]:
    """The layers of a model in the order in which its modules are registered, and those that are left out.

    Args:
        module: The model.
        layers: Names or shell patterns of the wanted layers. Default: all.
        call: The class that error messages name. Default: ``"GradientMonitor"``.
        strict: Whether a pattern that matches nothing is an error. Default: ``True``.

    Raises:
        ArgumentError: If a pattern matches nothing. It is a `ValueError`.
    """
    found: list[ParametersOfLayer] = []
    left_out: list[LayerWithoutGradients] = []
    holders: dict[int, str] = {}
    for full, part in module.named_modules():
        own = list(part.parameters(recurse=False))
        if not own:
            continue
        name = plain_name(full) or type(part).__name__
        new = [parameter for parameter in own if id(parameter) not in holders]
        if not new:
            first = holders[id(own[0])]
            left_out.append(LayerWithoutGradients(name, "tied", f"the same parameters as `{first}`, which is measured"))
            continue
        holders |= {id(parameter): name for parameter in new}
        trained = tuple(parameter for parameter in new if parameter.requires_grad)
        if not trained:
            left_out.append(LayerWithoutGradients(name, "frozen", "nothing in this layer is trained"))
            continue
        found.append(
            ParametersOfLayer(name, type(part).__name__, trained, isinstance(part, nn.Embedding | nn.EmbeddingBag))
        )
    if layers is not None:
        known = [*(one.name for one in found), *(one.name for one in left_out)]
        wanted = _checks.matching(call, "layers", layers, known, "layer", strict=strict)
        found = [one for one in found if one.name in wanted]
        left_out = [one for one in left_out if one.name in wanted]
    return found, left_out
