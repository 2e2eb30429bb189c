"""Krylov bases and quadratures against dense eigenvalues, closed forms and the known laws."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from helpers.spectra import network_like, symmetric

from lightning_ww.curvature import spectral_density
from lightning_ww.curvature.krylov import lanczos


def test_basis_stays_orthonormal_and_has_no_ghosts_in_float32() -> None:
    values = torch.cat([torch.rand(1980) * 0.5, torch.linspace(5, 100, 20)]).double()
    A = symmetric(values).float()
    krylov = lanczos(lambda v: A @ v, torch.randn(2000), 80)
    gram = krylov.basis.double() @ krylov.basis.double().T
    assert float((gram - torch.eye(80)).abs().max()) < 1e-5
    top = krylov.ritz()[0][-20:]
    torch.testing.assert_close(top, torch.linspace(5, 100, 20, dtype=torch.float64), rtol=1e-4, atol=1e-4)


def test_a_basis_in_sixteen_bits_gives_the_same_spectrum_without_ghosts() -> None:
    values = torch.cat([torch.rand(1980) * 0.5, torch.linspace(5, 100, 20)]).double()
    A = symmetric(values).float()
    full, half = (spectral_density(A, num_steps=60, storage=kind) for kind in ("full", "half"))
    torch.testing.assert_close(half.nodes[-20:], torch.linspace(5, 100, 20, dtype=torch.float64), rtol=5e-4, atol=0)
    assert half.trace == pytest.approx(full.trace, rel=2e-3)
    assert half.num_outliers == full.num_outliers
    krylov = lanczos(lambda v: A @ v, torch.randn(2000), 60, "half")
    assert krylov.basis.dtype == torch.float16
    rows = krylov.basis.double() / 2000**0.5
    assert float((rows @ rows.T - torch.eye(60)).abs().max()) < 1e-3


@pytest.mark.parametrize(("storage", "vectors"), [("full", 20), ("half", 12), ("none", 2)])
def test_peak_memory_is_the_basis_and_a_few_vectors(storage: Any, vectors: int) -> None:
    size = 1_000_000
    scale, start = torch.rand(size), torch.randn(size)
    with torch.profiler.profile(profile_memory=True) as profile:
        lanczos(lambda v: scale * v, start, 20, storage)
    assert profile.profiler is not None
    results: Any = profile.profiler.kineto_results
    events = sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns())
    peak = max(np.cumsum([event.nbytes() for event in events])) / (4 * size)
    assert vectors <= peak <= vectors + 8


@pytest.mark.parametrize("storage", ["full", "half", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_residual_bound_holds_for_every_ritz_value(storage: Any, dtype: torch.dtype) -> None:
    values = network_like()
    A = symmetric(values).to(dtype)
    exact = torch.linalg.eigvalsh(A.double())
    density = spectral_density(A, num_steps=60, storage=storage)
    distance = (density.nodes[:, None] - exact[None, :]).abs().min(dim=1).values
    eps = torch.finfo(torch.float32 if storage == "half" else dtype).eps
    rounding = 20 * eps * float(exact.abs().max())  # of the matrix products themselves
    assert bool((distance <= density.residuals + rounding).all())


def test_gpytorchs_lanczos_fails_with_an_error_or_says_how_wrong_it_may_be() -> None:
    with pytest.raises(ValueError, match='has failed on this operator: use `lanczos="own"`'):
        spectral_density(torch.zeros(5, 5), lanczos="gpytorch")
    with pytest.raises(ValueError, match="keeps its whole basis: leave out `storage`"):
        spectral_density(torch.eye(5), lanczos="gpytorch", storage="half")
    A = symmetric(network_like())
    small = spectral_density(1e-8 * A, num_steps=20, lanczos="gpytorch")
    assert not small.top_eigenvalues or not small.top_eigenvalues[0].converged


def test_a_start_vector_that_is_zero_is_an_error() -> None:
    message = "`lanczos(start=...)`: expected a finite vector that is not zero, but got one of norm 0."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        lanczos(lambda v: v, torch.zeros(4), 2)


@pytest.mark.parametrize("scale", [1e-26, 1e-22, 1e20, 1e25])
def test_nodes_scale_with_the_operator_far_beyond_what_squares_in_single_precision_hold(scale: float) -> None:
    values = torch.linspace(1, 2, 500)
    plain, scaled = (lanczos(lambda v, s=s: s * values * v, torch.ones(500), 10) for s in (1.0, scale))  # type: ignore[misc]
    torch.testing.assert_close(scaled.ritz()[0] / scale, plain.ritz()[0], rtol=1e-4, atol=0)
