"""Stochastic Lanczos quadrature, against exact eigenvalues and laws."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest
import torch
from helpers.spectra import network_like, symmetric
from helpers.trained import wasserstein
from torch import Tensor, nn
from torch.nn import functional

from lightning_ww.curvature import GGNOperator, HessianOperator, spectral_density
from lightning_ww.curvature.krylov import lanczos


def test_as_many_steps_as_dimensions_give_all_eigenvalues() -> None:
    values = torch.linspace(-3, 7, 40, dtype=torch.float64)
    A = symmetric(values)
    density = spectral_density(A, num_steps=40, quadrature="plain")
    torch.testing.assert_close(density.nodes, values, rtol=1e-8, atol=1e-8)
    assert float(density.weights.sum()) == pytest.approx(1)


@pytest.mark.parametrize("probe", ["gaussian", "rademacher"])
def test_moments_of_the_quadrature_are_exact(probe: Any) -> None:
    A = symmetric(network_like(), 3) / 60
    steps = 8
    density = spectral_density(A, num_steps=steps, probe=probe, seed=5, quadrature="plain")
    generator = torch.Generator().manual_seed(5 * 1_000_003)
    v = torch.randn(500, generator=generator, dtype=torch.float64)
    if probe == "rademacher":
        generator = torch.Generator().manual_seed(5 * 1_000_003)
        v = torch.randint(2, (500,), generator=generator, dtype=torch.float64) * 2 - 1
    v, power = v / v.norm(), v / v.norm()
    for k in range(2 * steps):
        moment = float((density.weights * density.nodes**k).sum())
        assert moment == pytest.approx(float(v @ power), rel=1e-8, abs=1e-12), k
        power = A @ power


def test_thirty_steps_reach_both_ends_of_a_network_like_spectrum() -> None:
    values = network_like()
    density = spectral_density(symmetric(values), num_steps=30)
    assert density.sharpness == pytest.approx(float(values.max()), rel=1e-3)
    assert density.lambda_min == pytest.approx(float(values.min()), rel=1e-2)


def test_shifting_and_turning_round_learn_nothing_new() -> None:
    A = symmetric(network_like())
    turned = spectral_density(7 * torch.eye(500, dtype=torch.float64) - A, num_steps=20, quadrature="plain")
    straight = spectral_density(A, num_steps=20, quadrature="plain")
    torch.testing.assert_close(turned.nodes.flip(0), 7 - straight.nodes, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e9])
def test_results_do_not_depend_on_scale(scale: float) -> None:
    A = symmetric(network_like()).float()
    one, other = (spectral_density(s * A, num_steps=20) for s in (1.0, scale))
    torch.testing.assert_close(other.nodes / scale, one.nodes, rtol=1e-4, atol=1e-3)
    assert other.num_outliers == one.num_outliers


@pytest.mark.parametrize(
    ("A", "nodes"),
    [
        (torch.zeros(50, 50), [0.0]),
        (torch.eye(50), [1.0]),
        (3 * torch.ones(50, 50) / 50, [0.0, 3.0]),
        (torch.diag(torch.tensor([2.0] * 25 + [5.0] * 25)), [2.0, 5.0]),
        (torch.tensor([[4.0]]), [4.0]),
        (torch.diag(torch.tensor([1.0, 2.0, 3.0])), [1.0, 2.0, 3.0]),
    ],
    ids=["zero", "identity", "rank one", "two eigenvalues", "P = 1", "more steps than P"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("storage", ["full", "half", "none"])
def test_degenerate_operators_are_exact(A: Tensor, nodes: list[float], dtype: torch.dtype, storage: Any) -> None:
    density = spectral_density(A.to(dtype), num_steps=20, storage=storage)
    torch.testing.assert_close(density.nodes, torch.tensor(nodes, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    assert float(density.weights.sum()) == pytest.approx(1)


def test_three_vectors_give_both_ends_and_withhold_what_they_cannot() -> None:
    values = torch.cat([torch.rand(1980) * 0.5 - 0.1, torch.linspace(5, 100, 20)]).double()
    A = symmetric(values).float()
    full, none = (spectral_density(A, num_steps=80, storage=kind) for kind in ("full", "none"))
    assert none.sharpness == pytest.approx(100, rel=1e-4)
    assert none.lambda_min == pytest.approx(full.lambda_min, rel=0.05)
    copies = int((none.nodes > 99).sum())
    assert copies > 1  # which is why outliers are not counted
    assert none.num_outliers is None
    assert none.bulk_edge is None
    assert len(none.top_eigenvalues) == 1
    assert not none.is_simple.any()
    assert float(none.weights.sum()) == pytest.approx(1)
    assert lanczos(lambda v: A @ v, torch.randn(2000), 5, "none").basis.numel() == 0


def test_half_precision_operators_are_iterated_in_float32() -> None:
    A = torch.diag(torch.linspace(0.1, 10, 200)).bfloat16()
    density = spectral_density(A, num_steps=20)
    assert density.sharpness == pytest.approx(10, rel=0.02)
    assert len(density.nodes) == 20


def test_top_eigenvalues_and_sharpness_are_of_one_probe() -> None:
    density = spectral_density(symmetric(network_like()), num_steps=6, num_probes=5)
    assert density.top_eigenvalues[0].value == density.sharpness


def test_wigner_and_marchenko_pastur_laws_with_the_atom_at_zero() -> None:
    n = 800
    G = torch.randn(n, n, dtype=torch.float64)
    wigner = (G + G.T) / (2 * n) ** 0.5
    X = torch.randn(n // 2, n, dtype=torch.float64)
    wishart = X.T @ X / n  # half of its eigenvalues are zero
    for A in (wigner, wishart):
        density = spectral_density(A, num_steps=60, num_probes=4)
        spread = float(torch.linalg.eigvalsh(A).diff().sum())
        assert wasserstein(density.nodes, density.weights, torch.linalg.eigvalsh(A)) < 0.02 * spread
    assert density.near_zero_mass == pytest.approx(0.5, abs=0.05)
    assert density.negative_mass == pytest.approx(0, abs=1e-12)


def test_numbers_of_a_known_spectrum() -> None:
    values = torch.tensor([-2.0, 0.0, 0.0, *[1.0, 1.5] * 20, 2.0, 40.0, 50.0, 60.0, 70.0], dtype=torch.float64)
    density = spectral_density(torch.diag(values), num_steps=10, seed=3)
    assert density.sharpness == pytest.approx(70)
    assert density.lambda_min == pytest.approx(-2)
    assert [round(top.value) for top in density.top_eigenvalues[:4]] == [70, 60, 50, 40]
    assert all(top.converged for top in density.top_eigenvalues)
    assert density.num_outliers == 4
    assert density.bulk_edge == pytest.approx(2)
    assert density.outlier_gap == pytest.approx(20)
    nodes, weights = density.nodes, density.weights
    c = np.log(1000) / 1000
    expected = 48 * sum(float(w * t.clamp(min=0) / (t.clamp(min=0) + c)) for w, t in zip(weights, nodes, strict=True))
    assert density.effective_dimension(1000) == pytest.approx(expected)
    assert density.llc_quadratic(1000) == pytest.approx(expected / 2)
    above = nodes > 0.07
    assert density.is_exact
    assert density.estimate("log_pseudodet").error is not None
    assert density.log_pseudodet == pytest.approx(float(48 * (weights[above] * nodes[above].log()).sum()))
    assert density.condition is not None
    assert 1 <= density.condition <= 70


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "`spectral_density(num_steps=0)`: expected an integer of at least 1."),
        ({"num_probes": 0}, "`spectral_density(num_probes=0)`: expected an integer of at least 1."),
        ({"probe": "x"}, "`spectral_density(probe='x')`: expected one of ('gaussian', 'rademacher')."),
        ({"lanczos": "x"}, "`spectral_density(lanczos='x')`: expected one of ('own', 'gpytorch')."),
        ({"storage": "x"}, "`spectral_density(storage='x')`: expected one of ('full', 'half', 'none')."),
        ({"quadrature": "x"}, "`spectral_density(quadrature='x')`: expected one of ('reduced', 'plain')."),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        spectral_density(torch.eye(4), **arguments)


def curvature(net: nn.Module, x: Tensor, y: Tensor, *, is_ggn: bool) -> Any:
    params = list(net.parameters())
    if is_ggn:
        return GGNOperator(lambda: net(x), lambda z: functional.cross_entropy(z, y), params)
    return HessianOperator(lambda: functional.cross_entropy(net(x), y), params)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", [7, 8, 14])
def test_residuals_of_an_operator_in_16_bits_are_true_of_the_matrix_in_float64(dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    layers = [nn.Linear(20, 60), nn.ReLU(), nn.Linear(60, 60), nn.GELU(), nn.LayerNorm(60), nn.Linear(60, 5)]
    model, x, y = nn.Sequential(*layers).to(dtype), torch.randn(8, 20).to(dtype), torch.randint(5, (8,))
    twin = copy.deepcopy(model).double()
    for is_ggn in (True, False):
        found, exact = (
            spectral_density(curvature(net, data, y, is_ggn=is_ggn), num_steps=40)
            for net, data in ((model, x), (twin, x.double()))
        )
        residual = float(found.residuals[found.nodes.argmax()])
        assert abs(found.sharpness - exact.sharpness) <= residual <= 0.05 * found.sharpness
