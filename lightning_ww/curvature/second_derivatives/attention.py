"""Attention by its formula: fused kernels have no second derivative."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """`torch.nn.functional.scaled_dot_product_attention` by torch's own formula, chosen without a process-wide flag."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:  # the formula adds the mask
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -torch.inf)
    formula = torch.ops.aten._scaled_dot_product_attention_math
    return formula(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)[0]


def multi_head_attention(*args: Any, **kwargs: Any) -> Any:
    """`torch.nn.functional.multi_head_attention_forward`, with attention by the formula where no weights are returned."""
    bound = _signature.bind(*args, **kwargs)
    bound.apply_defaults()
    if bound.arguments["is_causal"] and bound.arguments["attn_mask"] is not None:
        bound.arguments["is_causal"] = False  # only a hint; the mask has it
    return _by_formula(*bound.args, **bound.kwargs)


_signature = inspect.signature(functional.multi_head_attention_forward)

# The same code, with another function where it looks up the fused one: torch itself stays as it is.
_by_formula = FunctionType(
    functional.multi_head_attention_forward.__code__,
    vars(functional) | {"scaled_dot_product_attention": scaled_dot_product_attention},
)
