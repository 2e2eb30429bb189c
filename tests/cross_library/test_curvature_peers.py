"""Products and spectra against PyHessian, curvlinops and hessian-eigenthings where they are sound."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cross_library import curvature_peers
from lightning_ww.curvature import GGNOperator, HessianOperator, spectral_density

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


def network() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(64, 5)).double().eval()
    )
    return model, (torch.randn(12, 2, 6, 6, dtype=torch.float64), torch.arange(12) % 5)


def operators() -> tuple[HessianOperator, GGNOperator, Any, Any]:
    model, (x, y) = network()
    params = list(model.parameters())
    H = HessianOperator(lambda: functional.cross_entropy(model(x), y), params)
    G = GGNOperator(lambda: model(x), lambda z: functional.cross_entropy(z, y), params)
    return H, G, model, (x, y)


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_products_equal_curvlinops(matrix: str) -> None:
    H, G, model, batch = operators()
    theirs = curvature_peers.curvlinops_operator(model, batch, matrix)
    v = torch.randn(H.shape[0], dtype=torch.float64)
    torch.testing.assert_close((H if matrix == "hessian" else G) @ v, theirs @ v, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_products_equal_hessian_eigenthings(matrix: str) -> None:
    H, G, model, batch = operators()
    theirs = curvature_peers.eigenthings_operator(model, batch, matrix)
    v = torch.randn(H.shape[0], dtype=torch.float64)
    tolerance = 1e-8 if matrix == "hessian" else 1e-5  # its Gauss–Newton takes finite differences
    ours = (H if matrix == "hessian" else G) @ v
    torch.testing.assert_close(ours, theirs.matvec(v), rtol=tolerance, atol=tolerance * float(ours.abs().max()))


def test_products_equal_pyhessian() -> None:
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    H, _, model, batch = operators()
    theirs = hessian(model, nn.CrossEntropyLoss(), data=batch, cuda=False)
    v = torch.randn(H.shape[0], dtype=torch.float64)
    parts = torch.split(v, [p.numel() for p in theirs.params])
    image = hessian_vector_product(
        theirs.gradsH, theirs.params, [a.view_as(p) for a, p in zip(parts, theirs.params, strict=True)]
    )
    torch.testing.assert_close(H @ v, torch.cat([part.reshape(-1) for part in image]), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("peer", ["pyhessian", "eigenthings"])
def test_both_ends_of_the_spectrum_equal_the_peers(peer: str) -> None:
    H, _, model, batch = operators()
    nodes, _ = getattr(curvature_peers, peer)(model, batch, 40)()
    ours = spectral_density(H, num_steps=40)
    assert ours.sharpness == pytest.approx(max(float(node) for node in nodes), rel=1e-4)
    assert ours.lambda_min == pytest.approx(min(float(node) for node in nodes), rel=1e-2)
