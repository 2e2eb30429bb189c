"""The weight matrices of a module by name, and the weights that are skipped, with reasons.

There are two steps. `find_layers` names every weight without reading its values. `Layer.read` returns the matrices of a
single layer, or raises `UnreadableWeightError` with the reason. So a model is never copied whole, and a bad layer does
not affect the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from lightning_ww import _checks
from lightning_ww._torch import is_factor, plain_name
from lightning_ww.weights import effective
from lightning_ww.weights.slices import (
    LAZY,
    SkippedLayer,
    UnreadableWeightError,
    check_finite,
    check_size,
    fused_side,
    kernel_positions,
    readable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PARALLEL_WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")
"""Classes whose attribute `module` is the user's module."""

Stacked = Literal["pooled", "each"]
"""How a stack of matrices in one weight is analyzed."""

GATES = {(nn.LSTM, nn.LSTMCell): "ifgo", (nn.GRU, nn.GRUCell): "rzn"}
"""The gate blocks of recurrent weights, in torch's order."""


@dataclass(frozen=True)
class Layer:
    """A weight of a model, by name; its values are read on demand."""

    name: str  # dotted, without wrappers; "encoder.0", "attention.q_proj", "lstm.weight_hh_l0.f"
    kind: str  # the module's class
    owner: str  # the module's dotted name, "" for the model itself
    module: nn.Module
    attribute: str  # the name of the module's attribute
    block: tuple[int, int] = (0, 1)  # the index of its block of rows, and the number of equal blocks
    is_fused: bool = False  # whether the blocks are along the side that is three times as long as the other

    @property
    def is_embedding(self) -> bool:  # noqa: D102
        return _is_a(self.module, nn.Embedding, nn.EmbeddingBag)

    @property
    def is_convolution(self) -> bool:  # noqa: D102
        return _is_a(self.module, _ConvNd)

    @property
    def is_factor(self) -> bool:
        """Tell whether the weight is one of the two factors of a low-rank product, as LoRA's libraries name them."""
        return is_factor(self.name)

    @property
    def is_frozen(self) -> bool:
        """Tell whether none of the tensors that make up the weight is trained."""
        sources = effective.sources(self.module, self.attribute)
        return not any(source.requires_grad for source in sources)

    @property
    def is_sharded(self) -> bool:
        """Tell whether the tensors that make up the weight are spread over several processes (`DTensor`)."""
        return any(hasattr(source, "full_tensor") for source in effective.sources(self.module, self.attribute))

    def outline(self) -> Tensor:
        """Zeros of the shape that `read` gives, without memory, for a weight that is spread over several processes."""
        weight = effective.weight(self.module, self.attribute)
        assert weight is not None
        if weight.ndim < 2:  # each process checks its own part
            check_finite(weight.detach().to_local())  # type: ignore[attr-defined]
        return self.slices_of(torch.zeros(1, dtype=weight.dtype).expand(weight.shape))

    def read(self, *, whole: bool = False) -> Tensor:
        """The weight as a stack of matrices, detached, in its own dtype, shape ``(slices, rows, cols)``.

        A convolution has one ``out × in/groups`` matrix per kernel position; a depthwise one (``in/groups = 1``) has a
        single matrix, ``out × kernel positions``. A weight of three axes that is no convolution's, as the experts of a mixture
        are, is a stack of matrices. Anything else is one matrix.

        Args:
            whole: Whether to gather a weight that is spread over several processes; then this is a collective call.
                Default: ``False``.

        Raises:
            UnreadableWeightError: If the weight cannot be analyzed; it has the reason.
        """
        weight = effective.weight(self.module, self.attribute)
        if whole and weight is not None:
            weight = weight.detach().full_tensor()  # type: ignore[attr-defined]
        if weight is not None and not isinstance(weight, UninitializedParameter) and not weight.is_meta:
            weight = effective.decoded(self.module, weight)
            if (scale := effective.scale_beside(self.module, weight)) is not None:
                sentence = (
                    f"a `{self.kind}` holds {weight.dtype} codes, with `{scale}` beside them, and no `dequantize`"
                )
                raise UnreadableWeightError("quantised", sentence)
        return self.slices_of(weight)

    def slices_of(self, weight: Tensor | None) -> Tensor:
        """The slices of another tensor in place of the weight, such as the initial one; shape as in `read`."""
        weight = readable(weight)
        index, count = self.block
        if count > 1:
            weight = weight.tensor_split(count, dim=fused_side(weight, count) if self.is_fused else 0)[index]
        if weight.ndim == 2 or (weight.ndim == 3 and not self.is_convolution):
            return weight.reshape(-1, *weight.shape[-2:])
        if weight.ndim > 2 and self.is_convolution:
            groups: Any = self.module.groups if _is_a(self.module, _ConvTransposeNd) else 0
            return kernel_positions(weight, transposed_groups=int(groups))
        check_finite(weight)  # even if it is not a matrix, NaN in it must be reported
        if weight.ndim < 2:
            raise UnreadableWeightError("one_axis", f"a weight with {weight.ndim} axis is not a matrix")
        sentence = f"a {self.kind} with a weight of {weight.ndim} axes is not known"
        raise UnreadableWeightError("unsupported_shape", sentence)


def find_layers(
    model: nn.Module,
    layers: str | Sequence[str] | None = None,
    *,
    call: str = "analyze",
    argument: str = "layers",
    strict: bool = True,
    split: str | Sequence[str] | None = None,
    stacked: Stacked = "pooled",
) -> tuple[list[Layer], list[SkippedLayer]]:
    """Name the weights of a model, in the order in which its modules are registered.

    Args:
        model: Any module.
        layers: Names or shell patterns of the wanted layers. Default: all.
        call: The function or class that error messages name. Default: ``"analyze"``.
        argument: The argument that error messages name. Default: ``"layers"``.
        strict: Whether a pattern that matches nothing is an error. (A layer may be removed during training.) Default:
            ``True``.
        split: Names or patterns of weights that hold queries, keys and values together (GPT-2's ``c_attn``, timm's
            ``qkv``); each becomes three layers, ``….q``, ``….k`` and ``….v``. Default: none.
        stacked: Whether a stack of matrices in one weight is one layer, their eigenvalues pooled (``"pooled"``, default), or
            a layer for each matrix, ``….0``, ``….1`` and so on (``"each"``).

    Returns:
        The layers, and the weights that are skipped without being read: those that are ``None``, or shared with another
        layer. Parameters with two axes or more that are no module's weight are layers, too, under their own names.

    Raises:
        ArgumentError: If a pattern matches nothing. It is a `ValueError`.
    """
    matrices: list[Layer] = []
    skipped: list[SkippedLayer] = []
    first_holder: dict[object, Layer] = {}
    claimed: set[int] = set()
    modules = list(_named_modules(model))
    for name, module in modules:
        try:
            own = list(_layers_of(name, module))
        except Exception as error:  # a module whose attributes cannot be read
            skipped.append(SkippedLayer(name or "weight", "failed", f"{type(error).__name__}: {error}"))
            continue
        if not own and effective.is_packed_recurrent(module):
            skipped.append(
                SkippedLayer(name or "weight", "quantised", f"a quantized {_kind(module)} holds packed codes")
            )
        for layer in own:
            parts = effective.sources(module, layer.attribute)
            claimed.update(map(id, parts))
            if not parts and getattr(module, layer.attribute, None) is None:
                skipped.append(SkippedLayer(layer.name, "no_weight", f"this {layer.kind} has no weight"))
                continue
            identity = (tuple(map(id, parts)), layer.block) if parts else (id(module), layer.attribute, layer.block)
            first = first_holder.get(identity)
            if first is not None and (layer.is_embedding or not first.is_embedding):
                skipped.append(_tied(layer, first))
                continue
            if first is not None:  # an embedding tied to a head is judged as the head
                matrices.remove(first)
                skipped.append(_tied(first, layer))
            first_holder[identity] = layer
            matrices.append(layer)
    for name, module in modules:
        for attribute, parameter in module._parameters.items():
            if parameter is None or id(parameter) in claimed:
                continue
            claimed.add(id(parameter))
            full = f"{name}.{attribute}" if name else attribute
            if isinstance(parameter, UninitializedParameter):
                if attribute != "bias":  # which will have one axis
                    skipped.append(SkippedLayer(full, "uninitialised", LAZY))
            elif parameter.ndim >= 2:
                matrices.append(Layer(full, _kind(module), name, module, attribute))
    place = {id(module): i for i, (_, module) in enumerate(modules)}
    matrices.sort(key=lambda layer: place[id(layer.module)])
    if stacked == "each":
        matrices = [part for layer in matrices for part in _each(layer)]
    if split is not None:
        whole = [x.name for x in matrices if x.block[1] == 1]
        fused = _checks.matching(call, "split", split, whole, "weight matrix", strict=strict)
        matrices = [part for x in matrices for part in (_thirds(x) if x.name in fused else [x])]
    if layers is not None:
        known = [*(x.name for x in matrices), *(x.name for x in skipped)]
        wanted = _checks.matching(call, argument, layers, known, "weight matrix", strict=strict)
        matrices, skipped = [x for x in matrices if x.name in wanted], [x for x in skipped if x.name in wanted]
    return matrices, skipped


def nothing_to_measure(model: nn.Module, matrices: Sequence[Layer], skipped: Sequence[SkippedLayer]) -> str | None:
    """The reasons in words if no matrix can be measured, or could become measurable; else ``None``."""
    reasons = [f"`{skip.name}` ({skip.sentence})" for skip in skipped]
    for layer in matrices:
        try:
            check_size(layer.read())
        except UnreadableWeightError as unreadable:
            if unreadable.reason in ("nonfinite", "uninitialised", "meta", "sharded"):
                return None
            reasons.append(f"`{layer.name}` ({unreadable.sentence})")
        except Exception:  # reported as failed when it is measured
            return None
        else:
            return None
    if any(skip.reason == "uninitialised" for skip in skipped):
        return None
    if not reasons:
        return f"no weight matrix in this {type(model).__name__}: nothing to watch."
    return f"no weight matrix in this {type(model).__name__} that can be measured: {', '.join(reasons)}."


def _tied(layer: Layer, to: Layer) -> SkippedLayer:
    return SkippedLayer(layer.name, "tied", f"the same weight as `{to.name}`, which is analyzed")


def _thirds(layer: Layer) -> list[Layer]:
    """Queries, keys and values of a weight that holds them together, as layers of their own."""
    return [replace(layer, name=f"{layer.name}.{part}", block=(i, 3), is_fused=True) for i, part in enumerate("qkv")]


def _each(layer: Layer) -> list[Layer]:
    """The matrices of a stack as layers of their own; any other layer as it is."""
    parts = effective.sources(layer.module, layer.attribute)
    is_stack = len(parts) == 1 and parts[0].ndim == 3 and not layer.is_convolution and layer.block[1] == 1
    if not is_stack:
        return [layer]
    return [replace(layer, name=f"{layer.name}.{i}", block=(i, len(parts[0]))) for i in range(len(parts[0]))]


def _named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules with their plain names; `module` is dropped from a name where it belongs to a parallel wrapper."""
    dropped = {
        f"{name}.module".lstrip(".")
        for name, module in model.named_modules()
        if type(module).__name__ in PARALLEL_WRAPPERS
    }
    for name, module in model.named_modules():
        parts = name.split(".") if name else []
        kept = [part for i, part in enumerate(parts) if ".".join(parts[: i + 1]) not in dropped]
        yield plain_name(".".join(kept)), module


def _layers_of(name: str, module: nn.Module) -> Iterable[Layer]:
    """The layers of a module itself, without those of its children."""
    kind = _kind(module)
    prefix = f"{name}." if name else ""
    if _is_a(module, nn.MultiheadAttention):
        if module._qkv_same_embed_dim:
            for i, part in enumerate(("q_proj", "k_proj", "v_proj")):
                yield Layer(prefix + part, kind, name, module, "in_proj_weight", (i, 3))
        else:
            for part in ("q_proj", "k_proj", "v_proj"):
                yield Layer(prefix + part, kind, name, module, f"{part}_weight")
    elif _is_a(module, nn.RNNBase, nn.RNNCellBase):
        attributes = dict.fromkeys(effective.attribute_of(parameter) for parameter, _ in module.named_parameters())
        for attribute in (a for a in attributes if a.startswith("weight_")):
            gates = next((g for cells, g in GATES.items() if _is_a(module, *cells)), "")
            if not gates or attribute.startswith("weight_hr"):  # an LSTM's projection has no gates
                yield Layer(prefix + attribute, kind, name, module, attribute)
            else:
                for i, gate in enumerate(gates):
                    yield Layer(f"{prefix}{attribute}.{gate}", kind, name, module, attribute, (i, len(gates)))
    elif effective.owns(module, "weight"):
        yield Layer(name or "weight", kind, name, module, "weight")


def _kind(module: nn.Module) -> str:
    """The name of the module's class, even if parametrization or scripting has replaced that class."""
    scripted = getattr(module, "original_name", None) if isinstance(module, torch.jit.ScriptModule) else None
    own = parametrize.type_before_parametrizations(module)
    if any(base.__name__ == "FSDPModule" for base in own.__mro__):  # a class that `fully_shard` has made of the user's
        own = own.__mro__[2]
    return str(scripted or own.__name__)


def _is_a(module: nn.Module, *kinds: type) -> bool:
    """Tell whether a module is of one of these kinds; a scripted one has only the name of its class."""
    if not isinstance(module, torch.jit.ScriptModule):
        return isinstance(module, kinds)
    known = getattr(nn, _kind(module), None)
    return isinstance(known, type) and issubclass(known, kinds)
