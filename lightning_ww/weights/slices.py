"""A weight as a stack of matrices, or the reason why it cannot be analyzed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from lightning_ww._errors import LightningWWError

SkipReason = Literal[
    "no_weight", "one_axis", "too_small", "empty", "tied", "frozen", "meta", "uninitialised", "quantised", "sharded",
    "nonfinite", "unsupported_shape", "unsupported_dtype", "failed",
]  # fmt: skip
"""The reasons for skipping a weight, as codes."""

MIN_EIGENVALUES = 8
"""The fewest eigenvalues (short side × slices) that an analyzed layer may have; WeightWatcher's rule."""

LAZY = "a lazy weight without a shape yet; run one batch first"


class UnreadableWeightError(LightningWWError):
    """A weight whose values cannot be analyzed, with the reason as a code and as a sentence."""

    def __init__(self, reason: SkipReason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


@dataclass(frozen=True)
class SkippedLayer:
    """A weight that was not analyzed."""

    name: str
    reason: SkipReason
    sentence: str


@dataclass(frozen=True)
class Weight:
    """A layer as it was when its weight was read."""

    name: str
    kind: str
    is_embedding: bool
    is_convolution: bool
    is_frozen: bool
    slices: Tensor  # shape (slices, rows, cols), in its own dtype
    is_factor: bool = False  # of a low-rank product


def check_size(slices: Tensor) -> None:
    """Raise `UnreadableWeightError` if there are too few eigenvalues, or if such a small weight is not finite."""
    count, rows, cols = slices.shape
    if min(rows, cols) * count < MIN_EIGENVALUES:
        check_finite(slices)
        raise UnreadableWeightError(
            "too_small",
            f"{rows} × {cols}{'' if count == 1 else f', {count} slices'}: {min(rows, cols) * count} eigenvalues, and "
            f"{MIN_EIGENVALUES} are needed",
        )


def check_finite(weight: Tensor) -> None:
    """Raise `UnreadableWeightError` if an element is NaN or infinite."""
    values = weight.float() if weight.dtype.itemsize == 1 else weight  # torch has no isfinite of 8-bit numbers
    lost = int((~torch.isfinite(values)).sum())
    if lost:
        raise UnreadableWeightError("nonfinite", f"{lost} of {weight.numel()} elements are NaN or infinite")


def fused_side(weight: Tensor, count: int) -> int:
    """The axis along which a weight holds ``count`` matrices: the one that is ``count`` times the other, else the rows."""
    if weight.ndim == 2:
        rows, cols = weight.shape
        for axis, holds in enumerate(
            (rows == count * cols, cols == count * rows, rows % count == 0, cols % count == 0)
        ):
            if holds:
                return axis % 2
    sides = " × ".join(map(str, weight.shape))
    raise UnreadableWeightError("unsupported_shape", f"no side of {sides} is a multiple of {count}, so it is not split")


def kernel_positions(weight: Tensor, *, transposed_groups: int = 0) -> Tensor:
    """One ``out × in/groups`` matrix per kernel position, from a convolution's weight.

    Of a depthwise convolution (``in/groups = 1``) it is a single matrix, ``out × kernel positions``.

    Args:
        weight: The weight, at least three axes.
        transposed_groups: The number of groups of a transposed convolution; ``0``: it is not transposed. Default: ``0``.
    """
    if transposed_groups:  # in × out/groups, the groups along the first axis
        groups = weight.reshape(transposed_groups, -1, *weight.shape[1:])
        weight = groups.transpose(1, 2).flatten(0, 1)
    positions = weight.movedim((0, 1), (-2, -1)).flatten(0, -3)
    return positions.permute(2, 1, 0) if positions.shape[2] == 1 else positions


def readable(weight: Tensor | None) -> Tensor:
    """The tensor, detached, if its values can be analyzed."""
    if weight is None:
        raise UnreadableWeightError("no_weight", "the weight is None")
    if isinstance(weight, UninitializedParameter):
        raise UnreadableWeightError("uninitialised", LAZY)
    if weight.is_meta:
        raise UnreadableWeightError("meta", "the weight is on the meta device: it has a shape and no values")
    if hasattr(weight, "full_tensor"):
        check_finite(weight.detach().to_local())  # type: ignore[attr-defined]
        raise UnreadableWeightError("sharded", "the weight is a DTensor, spread over several processes")
    if weight.is_quantized or weight.dtype in (torch.uint8, torch.int8):
        sentence = f"a `{type(weight).__name__}` of {weight.dtype} holds codes, not values, and has no `dequantize`"
        raise UnreadableWeightError("quantised", sentence)
    if not weight.is_floating_point():
        raise UnreadableWeightError("unsupported_dtype", f"a weight of dtype {weight.dtype} is not real floating point")
    if weight.layout != torch.strided:
        weight = weight.to_dense()
    if weight.numel() == 0:
        raise UnreadableWeightError("empty", f"the weight has no elements (shape {tuple(weight.shape)})")
    return weight.detach().as_subclass(Tensor)
