"""Where operations are replaced: results stay torch's, whatever the arguments, and others are left alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lightning_ww.curvature.second_derivatives.context import by_torch_itself, differentiable_twice
from lightning_ww.curvature.second_derivatives.rewrites import ALWAYS, LOOKUPS, REWRITES

CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "batch norm in evaluation": lambda x: functional.batch_norm(x, torch.zeros(4), torch.ones(4)),
    "batch norm of its batch": lambda x: functional.batch_norm(x, None, None, training=True),
    "layer norm": lambda x: functional.layer_norm(x, (4,)),
    "cross-entropy": lambda x: functional.cross_entropy(x, torch.tensor([0, 1, 2])),
    "cross-entropy with weights": lambda x: functional.cross_entropy(x, torch.tensor([0, 1, 2]), torch.ones(4)),
    "softmax in another dtype": lambda x: torch.softmax(x, -1, dtype=torch.float64).float(),
    "conv with words for padding": lambda x: functional.conv1d(x[:, None], torch.ones(1, 1, 3), padding="same"),
    "attention": lambda x: functional.scaled_dot_product_attention(x[None], x[None], x[None]),
    "weight norm": lambda x: torch._weight_norm(x, x.norm(dim=1, keepdim=True), 0),
}


@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_are_torchs(name: str) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plain = CALLS[name](x)
    with differentiable_twice():
        ours = CALLS[name](x)
    torch.testing.assert_close(ours, plain)
    weights = torch.linspace(-1, 1, plain.numel()).view_as(plain)
    slopes = [torch.autograd.grad((value * weights).sum(), x)[0] for value in (ours, plain)]
    torch.testing.assert_close(slopes[0], slopes[1], atol=1e-5, rtol=1e-4)


def test_no_operation_is_in_two_tables() -> None:
    assert not set(REWRITES) & set(ALWAYS)
    assert set(LOOKUPS) < set(ALWAYS)


def test_torch_itself_is_used_where_that_is_asked_for_also_inside() -> None:
    x = torch.randn(3, 4).requires_grad_()
    with differentiable_twice():
        assert "LayerNormBackward" in str(functional.layer_norm(x, (4,)).grad_fn)
        with by_torch_itself():
            assert "NativeLayerNorm" in str(functional.layer_norm(x, (4,)).grad_fn)
        assert "NativeLayerNorm" not in str(functional.layer_norm(x, (4,)).grad_fn)
    with by_torch_itself():
        weight = torch.full((2, 3), 9.0)
        functional.embedding(torch.tensor([0]), weight, max_norm=1.0)
        assert bool((weight == 9).all())
