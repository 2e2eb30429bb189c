"""Embeddings that have second derivatives, and do not change their weights.

A lookup with ``padding_idx`` has no gradient there, and so no second derivative either; forward derivatives do not know
that. With ``sparse=True`` torch has no second derivative. With ``max_norm`` it scales rows of the weight in place; here the
rows that are looked up are scaled, by factors that are constants, as in the gradient that training sees.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

RENORM_EPS = 1e-7
"""The number that torch adds to a norm before it divides by it."""


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """`torch.nn.functional.embedding`, whose gradient is that of the loss even with ``scale_grad_by_freq``."""
    if padding_idx is None and max_norm is None and not scale_grad_by_freq and not sparse:
        return NotImplemented
    found = torch.embedding(weight, input)
    if max_norm is not None:
        found = found + _shift(weight, input, max_norm, norm_type)
    if padding_idx is not None:
        is_padding = (input == padding_idx % weight.shape[0]).unsqueeze(-1)
        found = torch.where(is_padding, found.detach(), found)
    return found


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """`torch.nn.functional.embedding_bag`, as sums or means of the rows that are looked up."""
    if mode not in ("sum", "mean") or input.ndim not in (1, 2):
        return NotImplemented
    flat = input.reshape(-1)
    if input.ndim == 2:
        bags, count = torch.arange(input.shape[0], device=flat.device).repeat_interleave(input.shape[1]), input.shape[0]
    elif offsets is None:
        return NotImplemented
    else:
        starts = offsets[:-1] if include_last_offset else offsets
        count = starts.numel()
        bags = torch.searchsorted(starts, torch.arange(flat.numel(), device=flat.device), right=True) - 1
    rows = torch.embedding(weight, flat)
    if max_norm is not None:
        rows = rows + _shift(weight, flat, max_norm, norm_type)
    counted = torch.ones_like(flat, dtype=weight.dtype)
    if padding_idx is not None:
        counted = counted * (flat != padding_idx % weight.shape[0])
    shares = counted if per_sample_weights is None else counted * per_sample_weights.reshape(-1)
    sums = torch.zeros(count, weight.shape[1], dtype=weight.dtype, device=weight.device)
    sums = sums.index_add(0, bags, rows * shares.unsqueeze(-1))
    if mode == "sum":
        return sums
    return sums / torch.zeros_like(sums[:, 0]).index_add(0, bags, counted).clamp(min=1).unsqueeze(-1)


@contextmanager
def moved_from(weights: Sequence[Tensor], origins: Sequence[Tensor]) -> Iterator[None]:
    """Take norms at the ``origins`` of these weights, which are moved: as in derivatives, the factors are constants."""
    _known.origins = {id(weight): origin for weight, origin in zip(weights, origins, strict=True)}
    try:
        yield
    finally:
        _known.origins = {}


_known = threading.local()  # `origins`: the values of moved weights before, by the weight's id


def _shift(weight: Tensor, input: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """What torch would add to the rows that are looked up, by writing into the weight before."""
    origin = getattr(_known, "origins", {}).get(id(weight), weight)
    rows = torch.embedding(origin.detach(), input)
    norms = rows.norm(norm_type, dim=-1, keepdim=True)
    return torch.where(norms > max_norm, rows * (max_norm / (norms + RENORM_EPS)), rows) - rows
