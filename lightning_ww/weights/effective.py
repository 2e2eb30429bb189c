"""The weight that a module computes with at this moment, read without a trace.

A plain parameter is just that. A pruned, weight-normed or parametrized weight is a function of other tensors, which
torch evaluates in the forward pass: after an optimizer step the attribute itself is one step old, and evaluating a
parametrization may advance its buffers (spectral norm's power iteration) or the random stream. Here it is evaluated
anew, on a copy, in evaluation mode, with the random streams put back.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lightning_ww._torch import random_streams_kept

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUFFIXES = ("_orig", "_g", "_v")
"""Under which pruning, spectral norm and weight norm of the older kind keep a weight's sources."""


def owns(module: nn.Module, attribute: str) -> bool:
    """Whether the module itself holds that weight, rather than handing on another module's by a property."""
    if attribute in _held(module._parameters) or parametrize.is_parametrized(module, attribute) or _is_packed(module):
        return True
    buffer = _held(module._buffers).get(attribute)  # a loss's weights of the classes have one axis, and are no layer
    return isinstance(vars(module).get(attribute), Tensor) or (buffer is not None and buffer.ndim >= 2)


def sources(module: nn.Module, attribute: str) -> Sequence[Tensor]:
    """The parameters (or buffer) that the weight is made of; they tell tied weights and frozen ones."""
    if parametrize.is_parametrized(module, attribute):
        return list(_parametrization(module, attribute).parameters())
    names = (attribute, *(attribute + suffix for suffix in SUFFIXES))
    parameters = _held(module._parameters)
    found = [tensor for name in names if (tensor := parameters.get(name)) is not None]
    buffer = _held(module._buffers).get(attribute)
    return found or ([] if buffer is None else [buffer])


def attribute_of(parameter_name: str) -> str:
    """The weight that a parameter belongs to: ``parametrizations.weight_hh_l0.original0`` → ``weight_hh_l0``."""
    if parameter_name.startswith("parametrizations."):
        return parameter_name.split(".")[1]
    for suffix in SUFFIXES:
        parameter_name = parameter_name.removesuffix(suffix)
    return parameter_name


def weight(module: nn.Module, attribute: str, originals: Mapping[str, Tensor] | None = None) -> Tensor | None:
    """The weight as the next forward pass will use it; ``originals`` stand in for a parametrization's own tensors."""
    with torch.no_grad():
        if parametrize.is_parametrized(module, attribute):
            return _evaluate(_parametrization(module, attribute), originals or {})
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, prune.BasePruningMethod) and hook._tensor_name == attribute:
                return cast("Tensor", hook.apply_mask(module))  # type: ignore[no-untyped-call]
            if isinstance(hook, WeightNorm) and hook.name == attribute:
                return cast("Tensor", hook.compute_weight(module))
            if isinstance(hook, SpectralNorm) and hook.name == attribute:
                return hook.compute_weight(module, do_power_iteration=False)
    value = getattr(module, attribute)
    return cast("Tensor | None", value() if _is_packed(module) else value)


def _evaluate(parametrization: nn.Module, originals: Mapping[str, Tensor]) -> Tensor:
    """The tensor that a parametrization yields, from a copy of it: whatever it does leaves no trace."""
    twin = copy.deepcopy(parametrization)
    for module in twin.modules():
        module.training = False
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    with random_streams_kept(parametrization):
        return cast("Tensor", torch.func.functional_call(twin, dict(originals), ()))


def _parametrization(module: nn.Module, attribute: str) -> nn.Module:
    return cast("nn.ModuleDict", module.parametrizations)[attribute]


def _held(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    """As a dict: a scripted module's is a wrapper that has ``items()`` and little else."""
    return dict(tensors.items())


def _is_packed(module: nn.Module) -> bool:
    """Whether this is one of torch's quantized modules, whose `weight` is a method."""
    return hasattr(module, "_packed_params") and callable(getattr(type(module), "weight", None))


def is_packed_recurrent(module: nn.Module) -> bool:
    """Whether this is one of torch's quantized recurrent modules, which have no `weight` at all."""
    return hasattr(module, "_all_weight_values") or hasattr(module, "_packed_weight_ih")
