"""The effective weight of a module, with which its next forward pass computes, read without side effects.

For a plain parameter it is the parameter itself. A pruned, weight-normalized or parametrized weight is a function of other
tensors, which torch evaluates in the forward pass. So after an optimizer step the attribute itself is one step old, and
evaluating a parametrization may change its buffers (spectral norm's power iteration) or advance the random streams. Here
it is evaluated again, on a copy, in evaluation mode, and the random streams are restored.
"""

from __future__ import annotations

import copy
import importlib
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lightning_ww._torch import random_streams_kept

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SUFFIXES = ("_orig", "_g", "_v")
"""Suffixes of the tensors that make up a weight under pruning, and under the older spectral norm and weight norm."""


def owns(module: nn.Module, attribute: str) -> bool:
    """Tell whether the weight is the module's own, rather than a property that returns another module's weight."""
    if (
        attribute in _as_dict(module._parameters)
        or parametrize.is_parametrized(module, attribute)
        or _is_packed(module)
    ):
        return True
    buffer = _as_dict(module._buffers).get(attribute)  # class weights of a loss have one axis, and are no layer
    return isinstance(vars(module).get(attribute), Tensor) or (buffer is not None and buffer.ndim >= 2)


def sources(module: nn.Module, attribute: str) -> Sequence[Tensor]:
    """The parameters (or the buffer) that make up the weight; they show if it is tied or frozen."""
    if parametrize.is_parametrized(module, attribute):
        return list(_parametrization(module, attribute).parameters())
    names = (attribute, *(attribute + suffix for suffix in SUFFIXES))
    parameters = _as_dict(module._parameters)
    leaves = [tensor for name in names if (tensor := parameters.get(name)) is not None]
    buffer = _as_dict(module._buffers).get(attribute)
    return leaves or ([] if buffer is None else [buffer])


def attribute_of(parameter_name: str) -> str:
    """The weight that a parameter belongs to: ``parametrizations.weight_hh_l0.original0`` → ``weight_hh_l0``."""
    if parameter_name.startswith("parametrizations."):
        return parameter_name.split(".")[1]
    for suffix in SUFFIXES:
        parameter_name = parameter_name.removesuffix(suffix)
    return parameter_name


def weight(module: nn.Module, attribute: str, originals: Mapping[str, Tensor] | None = None) -> Tensor | None:
    """The weight as the next forward pass will use it; ``originals`` replace a parametrization's own tensors."""
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


def decoded(module: nn.Module, weight: Tensor) -> Tensor:
    """The values of a weight that a library holds in codes, by the library's own method; any other weight as it is.

    The libraries are torch's quantization and torchao (a tensor's ``dequantize``), bitsandbytes (a state beside the
    codes), and those whose modules have a method ``dequantize``.
    """
    if type(weight).dequantize is not Tensor.dequantize or weight.is_quantized:
        return weight.dequantize()
    if (state := getattr(weight, "quant_state", None)) is not None:  # bitsandbytes, 4 bits
        return cast("Tensor", _bitsandbytes().dequantize_4bit(weight.data, state))
    scale = getattr(weight, "SCB", None)
    scale = getattr(getattr(module, "state", None), "SCB", None) if scale is None else scale  # after a forward pass
    if scale is not None and weight.dtype == torch.int8:  # bitsandbytes, 8 bits
        return cast("Tensor", _bitsandbytes().int8_vectorwise_dequant(weight.data, scale))
    own = getattr(module, "dequantize", None)
    return cast("Tensor", own()) if weight.dtype.itemsize == 1 and callable(own) else weight


def scale_beside(module: nn.Module, weight: Tensor) -> str | None:
    """The name of the scale that a module holds beside an 8-bit floating-point weight, or ``None``."""
    if weight.dtype.itemsize > 1 or not weight.is_floating_point():
        return None
    return next((name for name in [*module._parameters, *module._buffers, *vars(module)] if "scale" in name), None)


def _bitsandbytes() -> Any:
    return importlib.import_module("bitsandbytes.functional")


def _evaluate(parametrization: nn.Module, originals: Mapping[str, Tensor]) -> Tensor:
    """The tensor that a parametrization returns, evaluated on a copy so that there are no side effects."""
    twin = copy.deepcopy(parametrization)
    for module in twin.modules():
        module.training = False
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    with random_streams_kept(parametrization):
        return cast("Tensor", torch.func.functional_call(twin, dict(originals), ()))


def _parametrization(module: nn.Module, attribute: str) -> nn.Module:
    return cast("nn.ModuleDict", module.parametrizations)[attribute]


def _as_dict(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    """The tensors as a dict; a scripted module has them in a wrapper with little else than ``items()``."""
    return dict(tensors.items())


def _is_packed(module: nn.Module) -> bool:
    """Tell whether this is one of torch's quantized modules, whose `weight` is a method."""
    return hasattr(module, "_packed_params") and callable(getattr(type(module), "weight", None))


def is_packed_recurrent(module: nn.Module) -> bool:
    """Tell whether this is one of torch's quantized recurrent modules, which have no `weight` at all."""
    return hasattr(module, "_all_weight_values") or hasattr(module, "_packed_weight_ih")
