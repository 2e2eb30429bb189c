"""The layers of a model by their parameters: a module's own ones, weight and bias together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from lightning_ww import _checks
from lightning_ww._torch import is_factor, plain_name


@dataclass(frozen=True)
class ParametersOfLayer:
    """The trained parameters that belong to a module itself, without those of its children."""

    name: str  # dotted, without wrappers
    kind: str  # the module's class
    parameters: tuple[nn.Parameter, ...] = field(compare=False)
    is_embedding: bool
    ids: tuple[int, ...]  # of the parameters: tensors cannot be compared
    is_factor: bool = False  # of a low-rank product, such as LoRA's


@dataclass(frozen=True)
class SkippedLayerGradients:
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
) -> tuple[list[ParametersOfLayer], list[SkippedLayerGradients]]:
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
    left_out: list[SkippedLayerGradients] = []
    holders: dict[int, str] = {}
    for full, part in module.named_modules():
        own = list(part.parameters(recurse=False))
        if not own:
            continue
        name = plain_name(full) or type(part).__name__
        new = [parameter for parameter in own if id(parameter) not in holders]
        if not new:
            first = holders[id(own[0])]
            left_out.append(SkippedLayerGradients(name, "tied", f"the same parameters as `{first}`, which is measured"))
            continue
        holders |= {id(parameter): name for parameter in new}
        trained = tuple(parameter for parameter in new if parameter.requires_grad)
        if not trained:
            left_out.append(SkippedLayerGradients(name, "frozen", "nothing in this layer is trained"))
            continue
        is_embedding, ids = isinstance(part, nn.Embedding | nn.EmbeddingBag), tuple(map(id, trained))
        found.append(ParametersOfLayer(name, type(part).__name__, trained, is_embedding, ids, is_factor(name)))
    if layers is not None:
        known = [*(one.name for one in found), *(one.name for one in left_out)]
        wanted = _checks.matching(call, "layers", layers, known, "layer", strict=strict)
        found = [one for one in found if one.name in wanted]
        left_out = [one for one in left_out if one.name in wanted]
    return found, left_out
