"""The scatter over batches, against gradients and dense Hessians of each batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_ww.curvature import BatchNoise, HessianOperator, batch_noise


def problem(count: int = 5) -> tuple[list[Any], list[torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(count, 6, 3, dtype=torch.float64), torch.randint(2, (count, 6))
    losses = [(1.0, lambda i=i: nn.functional.cross_entropy(model(x[i]), y[i])) for i in range(count)]
    return losses, list(model.parameters())


def test_gradients_scatter_as_those_of_each_batch() -> None:
    losses, params = problem()
    rows = torch.stack([torch.cat([g.flatten() for g in torch.autograd.grad(loss(), params)]) for _, loss in losses])
    found = batch_noise(HessianOperator(losses, params), 6)
    assert found.gradient_norm == pytest.approx(float(rows.mean(0).norm()), rel=1e-10)
    covariance = torch.cov(rows.T)
    assert found.gradient_variance == pytest.approx(float(covariance.trace()), rel=1e-10)
    expected = torch.linalg.eigvalsh(covariance).flip(0)[:4]
    assert list(found.covariance_eigenvalues) == pytest.approx(expected.tolist(), rel=1e-8)
    assert found.sample_variance == pytest.approx(6 * float(covariance.trace()), rel=1e-10)


def test_hessians_scatter_on_average_as_the_dense_ones() -> None:
    losses, params = problem()
    dense = torch.stack([HessianOperator([pair], params).to_dense() for pair in losses])
    expected = float((dense - dense.mean(0)).square().sum() / (len(losses) - 1))
    operator = HessianOperator(losses, params)
    found = [batch_noise(operator, seed=seed).hessian_variance for seed in range(400)]
    assert sum(value or 0.0 for value in found) / 400 == pytest.approx(expected, rel=0.1)
    vector = torch.randn(operator.shape[0], dtype=torch.float64)
    for product, matrix in zip(operator.each(vector), dense, strict=True):
        assert torch.allclose(product, matrix @ vector, atol=1e-10)
    assert batch_noise(operator, hessian=False).hessian_variance is None


def test_the_noise_scale_is_that_of_known_gradients() -> None:
    """Gradients G + noise of variance s² per element and sample: tr(Σ)/‖G‖² = P s²/‖G‖²."""
    generator = torch.Generator().manual_seed(0)
    P, b, spread = 400, 16, 0.5
    w = torch.zeros(P, dtype=torch.float64, requires_grad=True)
    truth = torch.full((P,), 0.1, dtype=torch.float64)
    slopes = truth + spread / b**0.5 * torch.randn(60, P, generator=generator, dtype=torch.float64)
    losses = [(1.0, lambda slope=slope: slope @ w) for slope in slopes]
    found = batch_noise(HessianOperator(losses, [w]), b)
    assert found.noise_scale == pytest.approx(P * spread**2 / float(truth.square().sum()), rel=0.1)
    assert found.hessian_variance == 0  # each is linear
    assert found.tic(2.0) == pytest.approx(P * spread**2 / 2, rel=0.1)


def test_what_cannot_be_told_has_no_value() -> None:
    noise = BatchNoise(0.1, 1.0, (1.0,), None, 2, 8.0)
    assert noise.noise_scale is None  # ‖ḡ‖² is less than noise alone gives
    assert noise.tic(-1.0) is None
    unknown = BatchNoise(9.0, 1.0, (1.0,), None, 2, None)
    assert unknown.noise_scale is None
    assert unknown.tic(1.0) is None
    losses, params = problem(1)
    with pytest.raises(ValueError, match="two batches or more, got 1"):
        batch_noise(HessianOperator(losses, params))
