"""Layers whose weight is the same as at the last measurement, which need not be measured again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_ww.weights.report import LayerReport
    from lightning_ww.weights.slices import Weight

LOOKED_AT = 1024
"""The number of elements that are compared first; those of a layer that is trained differ, and it is left at that."""


@dataclass(frozen=True)
class _Known:
    """A report, and what the weight was."""

    request: Hashable
    some: bytes  # a fingerprint of some elements
    all: bytes | None  # a fingerprint of all elements; None: not taken
    report: LayerReport


class Unchanged:
    """The last report of each layer, with fingerprints of its weight; it keeps no weights."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def report(
        self,
        weight: Weight,
        request: Hashable,
        measured: Callable[[], LayerReport],
        again: Callable[[LayerReport], LayerReport],
    ) -> LayerReport:
        """The last report of a layer if its weight and the request are the same, else a new one.

        Args:
            weight: The weight.
            request: The options of the analysis, as far as they concern the layer.
            measured: A function that measures the layer.
            again: A function of the last report that makes it one of a weight that has not moved.
        """
        known = self._known.get(weight.name)
        some = _fingerprint(weight.slices.flatten()[:: max(1, weight.slices.numel() // LOOKED_AT)], weight)
        is_like_before = known is None or known.some == some
        every = _fingerprint(weight.slices, weight) if is_like_before else None
        if known is not None and every is not None and (known.all, known.request) == (every, request):
            return replace(again(known.report), kind=weight.kind, is_frozen=weight.is_frozen)
        report = measured()
        self._known[weight.name] = _Known(request, some, every, report)
        return report

    def __getstate__(self) -> dict[str, object]:
        """Leave out the reports."""
        return {"_known": {}}


def _fingerprint(elements: Tensor, weight: Weight) -> bytes:
    """A hash of elements, and of the weight's shape and dtype."""
    made = hashlib.sha1(f"{tuple(weight.slices.shape)} {weight.slices.dtype}".encode(), usedforsecurity=False)
    made.update(elements.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return made.digest()
