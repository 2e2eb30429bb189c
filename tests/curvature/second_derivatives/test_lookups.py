"""Embeddings of every kind: values are torch's, and derivatives those of a product with one-hot rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.derivatives import flat_hessian
from torch import Tensor
from torch.nn import functional

from lightning_ww.curvature import GGNOperator, HessianOperator
from lightning_ww.curvature.second_derivatives.context import differentiable_twice

INDICES = torch.tensor([[1, 0, 4], [4, 4, 2]])

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padding": {"padding_idx": 4},
    "padding from the end": {"padding_idx": -1},
    "sparse": {"sparse": True},
    "scaled by frequency": {"scale_grad_by_freq": True},
    "sparse with padding": {"sparse": True, "padding_idx": 4},
}


def weight() -> Tensor:
    return torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def one_hot(weight: Tensor, padding: int | None) -> Tensor:
    """The lookup as a product; rows of padding are constants."""
    rows = functional.one_hot(INDICES, 5).to(weight.dtype) @ weight
    if padding is None:
        return rows
    return torch.where(torch.eq(INDICES, padding % 5).unsqueeze(-1), rows.detach(), rows)


@pytest.mark.parametrize("kind", KINDS)
def test_hessian_of_an_embedding_is_that_of_one_hot_rows(kind: str) -> None:
    W = weight().requires_grad_()
    found = HessianOperator(lambda: functional.embedding(INDICES, W, **KINDS[kind]).sin().sum(1).square().sum(), [W])
    padding = KINDS[kind].get("padding_idx")
    expected = flat_hessian(lambda w: one_hot(w, padding).sin().sum(1).square().sum(), weight())
    torch.testing.assert_close(found.to_dense(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("engine", ["dual", "double_vjp"])
@pytest.mark.parametrize("padding", [None, 4])
def test_gauss_newton_of_an_embedding_is_the_dense_one_by_both_engines(engine: Any, padding: int | None) -> None:
    W = weight().requires_grad_()

    def outputs() -> Tensor:
        return functional.embedding(INDICES, W, padding_idx=padding).sin().sum(1)

    operator = GGNOperator([(1.0, outputs)], [lambda z: z.square().sum()], [W], engine)
    J = torch.autograd.functional.jacobian(lambda w: one_hot(w, padding).sin().sum(1), weight())  # type: ignore[no-untyped-call]
    J = torch.as_tensor(J).reshape(6, 15)
    torch.testing.assert_close(operator.to_dense(), 2 * J.T @ J, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm_type", [2.0, 1.0])
def test_an_embedding_with_a_largest_norm_has_torchs_values_and_leaves_its_weight(norm_type: float) -> None:
    W = weight().requires_grad_()
    before = W.detach().clone()
    with differentiable_twice():
        found = functional.embedding(INDICES, W, max_norm=0.8, norm_type=norm_type)
    torch.testing.assert_close(W.detach(), before, rtol=0, atol=0)
    expected = functional.embedding(INDICES, before.clone(), max_norm=0.8, norm_type=norm_type)
    torch.testing.assert_close(found.detach(), expected)
    (slope,) = torch.autograd.grad(found.sum(), W)
    torch.testing.assert_close(slope.sum(1) / 3, torch.bincount(INDICES.flatten(), minlength=5).double())


BAGS: dict[str, dict[str, Any]] = {
    "sum": {"mode": "sum"},
    "mean": {"mode": "mean"},
    "padding": {"mode": "mean", "padding_idx": 4},
    "weighted": {"mode": "sum", "per_sample_weights": torch.linspace(0.5, 2, 6, dtype=torch.float64).reshape(2, 3)},
}


@pytest.mark.parametrize("name", BAGS)
def test_a_bag_is_torchs_and_its_hessian_that_of_one_hot_rows(name: str) -> None:
    how, W = BAGS[name], weight().requires_grad_()
    with differentiable_twice():
        found = functional.embedding_bag(INDICES, W, **how)
    torch.testing.assert_close(found.detach(), functional.embedding_bag(INDICES, weight(), **how))

    def loss(w: Tensor) -> Tensor:
        shares = how.get("per_sample_weights", torch.ones(2, 3, dtype=torch.float64)) * (
            how.get("padding_idx", -1) != INDICES
        )
        sums = (functional.one_hot(INDICES, 5).to(w.dtype) @ w * shares.unsqueeze(-1)).sum(1)
        sums = sums / shares.sum(1, keepdim=True) if how["mode"] == "mean" else sums
        return torch.as_tensor(sums.sin().square().sum())

    operator = HessianOperator(lambda: functional.embedding_bag(INDICES, W, **how).sin().square().sum(), [W])
    torch.testing.assert_close(operator.to_dense(), flat_hessian(loss, weight()), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_flat_bag_with_offsets_is_torchs(is_closed: bool) -> None:
    W, offsets = weight().requires_grad_(), torch.tensor([0, 2, 2, *([6] if is_closed else [])])
    how: dict[str, Any] = {"mode": "mean", "offsets": offsets, "include_last_offset": is_closed}
    with differentiable_twice():
        found = functional.embedding_bag(INDICES.flatten(), W, **how)
    torch.testing.assert_close(found.detach(), functional.embedding_bag(INDICES.flatten(), weight(), **how))
