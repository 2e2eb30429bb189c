"""Attention by its formula, against torch's own kernels, and its Hessian against one of elementary operations."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.derivatives import agree
from torch import Tensor, nn
from torch.nn import functional

from lightning_ww.curvature import HessianOperator
from lightning_ww.curvature.second_derivatives.context import differentiable_twice


def three(heads: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, 3, 2, dtype=torch.float64, generator=generator) for _ in range(3))
    return q, k, v


@pytest.mark.parametrize("is_causal", [True, False])
def test_the_value_is_that_of_torchs_kernel(is_causal: bool) -> None:
    q, k, v = (x.float().requires_grad_() for x in three())
    with differentiable_twice():
        found = functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    torch.testing.assert_close(found, functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal))


def test_grouped_queries_and_a_mask_are_torchs() -> None:
    q, k, v = three()
    k, v = k[:, :1], v[:, :1]
    mask = torch.tensor([[True, False, True]] * 3)
    with differentiable_twice():
        found = functional.scaled_dot_product_attention(q.requires_grad_(), k, v, attn_mask=mask, enable_gqa=True)
    weights = (q @ k.transpose(-1, -2) / math.sqrt(2)).masked_fill(~mask, -torch.inf).softmax(-1)
    torch.testing.assert_close(found, weights @ v)


def test_its_hessian_is_that_of_a_product_a_softmax_and_a_product() -> None:
    q, k, v = three()
    x = torch.stack([q, k, v])

    def by_hand(x: Tensor) -> Tensor:
        q, k, v = x
        return torch.as_tensor(((q @ k.transpose(-1, -2) / math.sqrt(2)).softmax(-1) @ v).sin().sum())

    leaf = x.clone().requires_grad_()
    operator = HessianOperator(lambda: functional.scaled_dot_product_attention(*leaf).sin().sum(), [leaf])
    reference = x.clone().requires_grad_()
    expected = torch.autograd.functional.hessian(by_hand, reference)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(operator.to_dense(), torch.as_tensor(expected).reshape(36, 36), rtol=1e-9, atol=1e-10)
    agree(by_hand, x)


@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention_is_torchs_and_keeps_its_weights_to_itself(need_weights: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.MultiheadAttention(4, 2, batch_first=True), torch.randn(2, 3, 4)
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    with differentiable_twice():
        found, weights = layer(x, x, x, attn_mask=mask, is_causal=True, need_weights=need_weights)
    expected, known = layer(x, x, x, attn_mask=mask, is_causal=True, need_weights=need_weights)
    torch.testing.assert_close(found, expected)
    assert (weights is None) == (known is None) == (not need_weights)


def test_rows_that_see_nothing_have_torchs_value_and_the_hessian_of_differences_of_gradients() -> None:
    attention = nn.MultiheadAttention(4, 2, batch_first=True).double()
    x = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[0, :2] = padding[1] = True  # padded on the left, and nothing but padding
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    weight = attention.in_proj_weight

    def loss() -> Tensor:
        out: Tensor = attention(x, x, x, key_padding_mask=padding, attn_mask=causal, need_weights=False)[0]
        return out.square().mean()

    with differentiable_twice():
        found = loss()
    torch.testing.assert_close(found, loss())
    vector = torch.randn(weight.numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    product = HessianOperator(loss, [weight]) @ vector
    slopes = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            weight.add_(vector.view_as(weight), alpha=step)
        slopes.append(torch.autograd.grad(loss(), weight)[0].flatten())
        with torch.no_grad():
            weight.sub_(vector.view_as(weight), alpha=step)
    torch.testing.assert_close(product, (slopes[0] - slopes[1]) / 2e-5, rtol=1e-6, atol=1e-9)
