"""Spectra of small trained networks against their exact Hessians, which are built column by column."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.trained import Trained, trained, wasserstein
from torch import Tensor, nn
from torch.nn import functional

from lightning_ww.curvature import GGNOperator, HessianOperator, spectral_density


@pytest.mark.parametrize("steps", [40, 300])
def test_both_ends_and_the_outliers_are_the_exact_hessians(steps: int) -> None:
    net = trained(steps)
    assert len(net.values) == 2058
    density = spectral_density(net.hessian, num_steps=60)
    exact = net.values.flip(0)
    assert density.sharpness == pytest.approx(float(exact[0]), rel=1e-6)
    assert density.lambda_min == pytest.approx(float(exact[-1]), rel=1e-2)
    tops = density.top_eigenvalues
    for k in (4, 9):  # the fifth and the tenth of ten classes
        assert tops[k].value == pytest.approx(float(exact[k]), rel=1e-3)
        assert tops[k].converged
    for top in tops:
        assert float((net.values - top.value).abs().min()) <= top.residual + 1e-9
    assert wasserstein(density.nodes, density.weights, net.values) < 2e-3 * float(exact[0])


def test_float32_products_are_symmetric_to_rounding() -> None:
    net = trained(300)
    model = nn.Sequential(*net.model).float()
    try:
        H = HessianOperator(lambda: functional.cross_entropy(model(net.x.float()), net.y), list(model.parameters()))
        u, v = torch.randn(2, 2058)
        scale = float(u.norm() * (H @ v).norm())
        assert abs(float(u @ (H @ v) - v @ (H @ u))) < 3e-6 * scale
        torch.testing.assert_close((H @ v).double(), net.dense @ v.double(), rtol=1e-3, atol=1e-4)
    finally:
        model.double()


def error_of_the_trace(net: Trained, num_steps: int, quadrature: str, seeds: int = 12) -> float:
    """Root of the mean squared relative error over seeds."""
    exact = float(net.values.sum())
    traces = [
        spectral_density(net.dense, num_steps=num_steps, seed=seed, quadrature=quadrature).trace  # type: ignore[arg-type]
        for seed in range(seeds)
    ]
    return float(np.sqrt(np.mean(np.square(np.array(traces) / exact - 1))))


def test_reduced_variance_needs_a_quarter_of_the_products_for_the_same_trace() -> None:
    net = trained(300)
    assert float(net.loss().detach()) < 0.02
    reduced = error_of_the_trace(net, 40, "reduced")
    exact = float(net.values.sum())
    plain = [
        spectral_density(net.dense, num_steps=40, num_probes=4, seed=seed, quadrature="plain").trace / exact - 1
        for seed in range(12)
    ]
    assert reduced < float(np.sqrt(np.mean(np.square(plain))))


@pytest.mark.parametrize(("l2", "dead"), [(0.02, 0), (0.0, 12), (0.02, 12)], ids=["L2", "dead units", "both"])
def test_reduced_variance_is_not_worse_on_an_l2_floor_or_with_dead_units(l2: float, dead: int) -> None:
    net = trained(300, l2, dead)
    for num_steps in (20, 40):
        plain, reduced = (error_of_the_trace(net, num_steps, kind) for kind in ("plain", "reduced"))
        assert reduced <= 1.05 * plain + 1e-3


def test_one_probe_is_enough_for_the_density_except_of_a_matrix_close_to_rank_one() -> None:
    """The Deep Curvature Suite's claim, on the exact Hessian: the spread over probes is small, unless rank is one."""
    net = trained(300)

    def spread(A: Tensor) -> float:
        values = torch.linalg.eigvalsh(A)
        traces = [spectral_density(A, num_steps=30, seed=seed, quadrature="plain").trace for seed in range(20)]
        return float(np.std(traces) / values.sum())

    direction = torch.linalg.qr(torch.randn(2058, 1, dtype=torch.float64)).Q[:, 0]
    wishart = torch.randn(2058, 2058, dtype=torch.float64)
    assert spread(wishart @ wishart.T) < 0.05
    assert spread(torch.outer(direction, direction)) > 0.8
    assert 0.05 < spread(net.dense) < 0.5  # a network's Hessian stands between, which is why the variance is reduced


def test_gauss_newton_is_positive_and_close_to_the_hessian_once_trained() -> None:
    net = trained(300)
    G = GGNOperator(lambda: net.model(net.x), lambda z: functional.cross_entropy(z, net.y), net.params)
    density = spectral_density(G, num_steps=60)
    assert density.lambda_min > -1e-9
    assert density.sharpness == pytest.approx(float(net.values[-1]), rel=0.15)


def test_gpytorchs_lanczos_gives_the_same_density_where_it_is_sound() -> None:
    net = trained(40)
    ours, theirs = (spectral_density(net.dense, num_steps=25, lanczos=whose) for whose in ("own", "gpytorch"))
    assert len(ours.nodes) == len(theirs.nodes) == 25
    torch.testing.assert_close(theirs.nodes, ours.nodes, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(theirs.weights, ours.weights, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(theirs.residuals, ours.residuals, rtol=1e-4, atol=1e-6)


def test_a_product_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^`lanczos\(matvec=...\)` gave a product that is not finite.$"):
        spectral_density(torch.full((4, 4), float("nan")))
