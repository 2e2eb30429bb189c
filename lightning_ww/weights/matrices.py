"""A module's weight matrices, by name; what was left out, and why.

Two steps: `find_layers` names every weight without looking at its values; `Layer.read` gives the matrices of one of
them, or raises `UnreadableWeightError` with the reason. So a model is never copied whole, and one bad layer spoils
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from lightning_ww.weights import effective

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SkipReason = Literal[
    "no_weight", "one_axis", "too_small", "empty", "tied", "frozen", "meta", "uninitialised", "quantised", "sharded",
    "nonfinite", "unsupported_shape", "unsupported_dtype", "not_a_weight", "failed",
]  # fmt: skip
"""Why a weight was not analysed."""

MIN_EIGENVALUES = 8
"""The fewest eigenvalues (short side × slices) of a layer that is analysed; WeightWatcher's rule."""

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Attributes under which wrappers hold the module that the user named."""

PARALLEL_WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")
"""Classes whose attribute `module` is the module that the user named."""

GATES = {"LSTM": "ifgo", "GRU": "rzn"}
"""The gate blocks of recurrent weights, in torch's order."""


class UnreadableWeightError(Exception):
    """A weight that cannot be analysed: a reason code and a sentence."""

    def __init__(self, reason: SkipReason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


@dataclass(frozen=True)
class SkippedLayer:
    """A weight that was not analysed."""

    name: str
    reason: SkipReason
    sentence: str


@dataclass(frozen=True)
class Layer:
    """One weight of a model, named; its values are read when asked for."""

    name: str  # dotted, without wrappers; "encoder.0", "attention.q_proj", "lstm.weight_hh_l0.f"
    kind: str  # the module's class
    owner: str  # the module's dotted name, "" for the model itself
    module: nn.Module
    attribute: str  # of the module
    block: tuple[int, int] = (0, 1)  # which of how many equal blocks of rows

    @property
    def is_embedding(self) -> bool:  # noqa: D102
        return isinstance(self.module, nn.Embedding | nn.EmbeddingBag)

    @property
    def is_convolution(self) -> bool:  # noqa: D102
        return isinstance(self.module, _ConvNd)

    @property
    def is_frozen(self) -> bool:
        """Whether nothing behind the weight is trained."""
        sources = effective.sources(self.module, self.attribute)
        return not any(source.requires_grad for source in sources)

    def read(self) -> Tensor:
        """The weight as a stack of matrices, detached, in its own dtype, shape ``(slices, rows, cols)``.

        A convolution has one ``out × in/groups`` matrix per kernel position (transposed: ``in × out/groups``); anything
        else has one.

        Raises:
            UnreadableWeightError: With the reason.
        """
        return self.slices_of(effective.weight(self.module, self.attribute))

    def slices_of(self, weight: Tensor | None) -> Tensor:
        """The same of another tensor in the place of the weight (at initialisation, say)."""
        weight = _readable(weight)
        index, count = self.block
        if weight.ndim >= 2 and count > 1:
            weight = weight.tensor_split(count)[index]
        if weight.ndim < 2:
            check_finite(weight)  # no matrix, but its loss must not go unseen
            raise UnreadableWeightError("one_axis", f"a weight with {weight.ndim} axis is not a matrix")
        if weight.ndim == 2:
            return weight.unsqueeze(0)
        if not self.is_convolution:
            raise UnreadableWeightError(
                "unsupported_shape", f"a {self.kind} with a weight of {weight.ndim} axes is not known"
            )
        return weight.movedim((0, 1), (-2, -1)).flatten(0, -3)


def find_layers(
    model: nn.Module, layers: str | Sequence[str] | None = None, *, culprit: str = "analyze"
) -> tuple[list[Layer], list[SkippedLayer]]:
    """Name the weights of a model, in the order in which its modules are registered.

    Args:
        model: Any module.
        layers: Names or shell patterns of those wanted. Default: all.
        culprit: The call that an error message names.

    Returns:
        The layers, and what is known not to be one without reading it: weights that are ``None``, that another layer
        shares, and parameters with two axes or more that are no module's weight.

    Raises:
        ValueError: If a pattern matches nothing, or the model holds no weight at all.
    """
    found: list[Layer] = []
    skipped: list[SkippedLayer] = []
    first_holder: dict[object, str] = {}
    claimed: set[int] = set()
    for name, module in _named_modules(model):
        for layer in _layers_of(name, module):
            parts = effective.sources(module, layer.attribute)
            claimed.update(map(id, parts))
            if not parts and getattr(module, layer.attribute, None) is None:
                skipped.append(SkippedLayer(layer.name, "no_weight", f"this {layer.kind} has no weight"))
                continue
            identity = (tuple(map(id, parts)), layer.block) if parts else (id(module), layer.attribute, layer.block)
            if identity in first_holder:
                sentence = f"the same weight as `{first_holder[identity]}`, which is analysed"
                skipped.append(SkippedLayer(layer.name, "tied", sentence))
                continue
            first_holder[identity] = layer.name
            found.append(layer)
    for name, parameter in model.named_parameters():
        if id(parameter) not in claimed and not isinstance(parameter, UninitializedParameter) and parameter.ndim >= 2:
            sentence = "a parameter of its own, not a module's `weight`; wrap it in a module to have it analysed"
            skipped.append(SkippedLayer(clean_name(name), "not_a_weight", sentence))
    if not found:
        raise ValueError(
            f"`{culprit}` found no weight matrix in this {type(model).__name__}: it has no layer to watch."
        )
    if layers is None:
        return found, skipped
    wanted = _matching([*(x.name for x in found), *(x.name for x in skipped)], layers, culprit)
    return [x for x in found if x.name in wanted], [x for x in skipped if x.name in wanted]


def check_finite(weight: Tensor) -> None:
    """Raise `UnreadableWeightError` if an element is NaN or infinite."""
    lost = int((~torch.isfinite(weight)).sum())
    if lost:
        raise UnreadableWeightError("nonfinite", f"{lost} of {weight.numel()} elements are NaN or infinite")


def clean_name(name: str) -> str:
    """A dotted name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _matching(names: Sequence[str], layers: str | Sequence[str], culprit: str) -> set[str]:
    wanted: set[str] = set()
    for pattern in [layers] if isinstance(layers, str) else layers:
        matched = {name for name in names if name == pattern or fnmatchcase(name, pattern)}
        if not matched:
            known = ", ".join(f"`{name}`" for name in names)
            raise ValueError(f"`{culprit}(layers={pattern!r})` matches no weight matrix. This model has: {known}.")
        wanted |= matched
    return wanted


def _named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules by clean name; a parallel wrapper's attribute `module` is dropped too, a user's own is kept."""
    dropped = {
        f"{name}.module".lstrip(".")
        for name, module in model.named_modules()
        if type(module).__name__ in PARALLEL_WRAPPERS
    }
    for name, module in model.named_modules():
        parts = name.split(".") if name else []
        kept = [part for i, part in enumerate(parts) if ".".join(parts[: i + 1]) not in dropped]
        yield clean_name(".".join(kept)), module


def _layers_of(name: str, module: nn.Module) -> Iterable[Layer]:
    """The layers that a module itself is, without its children."""
    kind = type(module).__name__
    prefix = f"{name}." if name else ""
    if isinstance(module, nn.MultiheadAttention):
        if module._qkv_same_embed_dim:
            for i, part in enumerate(("q_proj", "k_proj", "v_proj")):
                yield Layer(prefix + part, kind, name, module, "in_proj_weight", (i, 3))
        else:
            for part in ("q_proj", "k_proj", "v_proj"):
                yield Layer(prefix + part, kind, name, module, f"{part}_weight")
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
        attributes = dict.fromkeys(effective.attribute_of(parameter) for parameter, _ in module.named_parameters())
        for attribute in (a for a in attributes if a.startswith("weight_")):
            gates = next((g for cell, g in GATES.items() if kind.startswith(cell)), "")
            if not gates or attribute.startswith("weight_hr"):  # an LSTM's projection has no gates
                yield Layer(prefix + attribute, kind, name, module, attribute)
            else:
                for i, gate in enumerate(gates):
                    yield Layer(f"{prefix}{attribute}.{gate}", kind, name, module, attribute, (i, len(gates)))
    elif effective.owns(module, "weight"):
        yield Layer(name or "weight", kind, name, module, "weight")


def _readable(weight: Tensor | None) -> Tensor:
    """The tensor, detached, if its values can be analysed."""
    if weight is None:
        raise UnreadableWeightError("no_weight", "the weight is None")
    if isinstance(weight, UninitializedParameter):
        raise UnreadableWeightError("uninitialised", "a lazy weight without a shape yet; run one batch first")
    if weight.is_meta:
        raise UnreadableWeightError("meta", "the weight is on the meta device: it has a shape and no values")
    if hasattr(weight, "full_tensor"):
        raise UnreadableWeightError("sharded", "the weight is a DTensor, spread over several processes")
    if weight.is_quantized or weight.dtype in (torch.uint8, torch.int8):
        raise UnreadableWeightError(
            "quantised", f"the weight is stored as {weight.dtype}; its codes are not its values"
        )
    if not weight.is_floating_point():
        raise UnreadableWeightError("unsupported_dtype", f"a weight of dtype {weight.dtype} is not real floating point")
    if weight.layout != torch.strided:
        weight = weight.to_dense()
    if weight.numel() == 0:
        raise UnreadableWeightError("empty", f"the weight has no elements (shape {tuple(weight.shape)})")
    return weight.detach()
