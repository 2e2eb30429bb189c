"""The initial weights of a model by layer name, from which distances are measured."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError
from lightning_ww._torch import plain_name
from lightning_ww.weights import effective
from lightning_ww.weights.layers import Layer, find_layers
from lightning_ww.weights.slices import UnreadableWeightError

if TYPE_CHECKING:
    from collections.abc import Sequence


def snapshot(layers: Sequence[Layer]) -> dict[str, Tensor]:
    """Copies of the slices of every readable layer by name, in the layer's dtype, on the CPU."""
    kept = {}
    for layer in layers:
        with suppress(Exception):  # an unreadable layer is reported when it is measured
            kept[layer.name] = layer.read().cpu().clone()
    return kept


def initial_slices(
    layers: Sequence[Layer],
    initial: nn.Module | Mapping[str, Tensor],
    argument: str = "initial",
    **options: Any,
) -> dict[str, Tensor]:
    """The slices of these layers at another moment, from a module of equal architecture or from its ``state_dict()``.

    Args:
        layers: The layers.
        initial: The module or state.
        argument: The argument of `analyze` that holds it. Default: ``"initial"``.
        options: The options of `find_layers` by which the layers were found.

    Raises:
        ArgumentError: If it has none of the layers, or is neither a module nor a mapping. It is a `ValueError`.
    """
    if isinstance(initial, nn.Module):
        found, _ = find_layers(initial, call=f"analyze({argument}=...)", strict=False, **options)
        known = {layer.name: layer for layer in found}
        slices = snapshot([known[layer.name] for layer in layers if layer.name in known])
    elif isinstance(initial, Mapping):
        is_wrapped = all(key.startswith("module.") for key in initial)  # the state of a data-parallel wrapper
        tensors = {plain_name(key.removeprefix("module.") if is_wrapped else key): v for key, v in initial.items()}
        slices = {}
        for layer in layers:
            weight = _from_state_dict(layer, tensors)
            if weight is not None:
                with suppress(UnreadableWeightError):  # reported when the layer itself is measured
                    slices[layer.name] = layer.slices_of(weight)
    else:
        raise _checks.unfit_object("analyze", argument, "a module or its state_dict()", f"a `{type(initial).__name__}`")
    if not slices:
        names = ", ".join(f"`{layer.name}`" for layer in layers)
        raise ArgumentError(f"`analyze({argument}=...)` holds none of the layers of this model: {names}.")
    return slices


def _from_state_dict(layer: Layer, tensors: Mapping[str, Tensor]) -> Tensor | None:
    """A layer's effective weight from the tensors of a state dict, or ``None`` if it is not among them."""
    prefix = f"{layer.owner}." if layer.owner else ""
    weight = prefix + layer.attribute
    if (plain := tensors.get(weight)) is not None:
        return plain
    if f"{weight}_orig" in tensors and f"{weight}_mask" in tensors:
        return tensors[f"{weight}_orig"] * tensors[f"{weight}_mask"]
    parametrization = f"{prefix}parametrizations.{layer.attribute}."
    originals = {
        key.removeprefix(parametrization): value for key, value in tensors.items() if key.startswith(parametrization)
    }
    return effective.weight(layer.module, layer.attribute, originals) if originals else None
