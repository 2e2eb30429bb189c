"""Numbers with errors, and outliers, against exact spectra."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from helpers.spectra import Diagonal, known_spectra, network_like, symmetric

from lightning_ww.curvature import HessianOperator, spectral_density


@pytest.mark.parametrize("num_steps", [15, 30, 60])
def test_errors_cover_the_exact_numbers_of_22_spectra_in_90_per_cent(num_steps: int) -> None:
    n = 50_000
    c = math.log(n) / n
    covered: dict[str, list[bool]] = {}
    shown: dict[str, list[bool]] = {}
    for number, values in enumerate(known_spectra().values()):
        tol = 1e-3 * float(values.abs().max())
        exact = {
            "negative_mass": float((values < -tol).double().mean()),
            "near_zero_mass": float((values.abs() <= tol).double().mean()),
            "log_pseudodet": float(values[values > tol].log().sum()),
            "effective_dimension": float((values.clamp(min=0) / (values.clamp(min=0) + c)).sum()),
            "condition": float(values.max() / values[values > tol].median()),
        }
        for seed in range(100 * number, 100 * number + 8):
            density = spectral_density(Diagonal(values), num_steps=num_steps, seed=seed)
            for name, known in exact.items():
                found = density.estimate(name, n)  # type: ignore[arg-type]
                assert found.value is not None
                assert found.error is not None
                covered.setdefault(name, []).append(abs(found.value - known) <= found.error + 2e-3 * abs(known))
                shown.setdefault(name, []).append(found.shown is not None)
    assert min(np.mean(hits) for hits in covered.values()) >= 0.90, {k: np.mean(v) for k, v in covered.items()}
    for name, hits in covered.items():  # of those that are shown, too
        assert np.mean(np.array(hits)[np.array(shown[name])]) >= 0.90, name


def test_numbers_that_their_error_makes_worthless_are_withheld_with_the_lever() -> None:
    values = known_spectra()["exponential decay"]
    density = spectral_density(Diagonal(values), num_steps=12)
    assert density.log_pseudodet is None
    found = density.estimate("log_pseudodet")
    assert re.fullmatch(r"its error is [\d.e+]+: raise `num_steps` \(12\)", found.reason)
    assert found.value is not None
    exact = spectral_density(Diagonal(values[-60:]), num_steps=60)
    assert exact.log_pseudodet == pytest.approx(float(values[-60:].log().sum()), rel=1e-6)
    assert exact.estimate("log_pseudodet").error == pytest.approx(0, abs=1e-6)


def test_rademacher_probes_have_no_error_since_it_depends_on_the_basis() -> None:
    density = spectral_density(symmetric(network_like()), probe="rademacher")
    assert density.trace_stderr is None
    assert density.estimate("negative_mass").error is None
    assert density.negative_mass is not None


@pytest.mark.parametrize(
    ("outliers", "bulk"),
    [([100, 50, 10, 9, 8], 1e-4), ([30, 10, 9], 1e-3), ([10, 5], 1e-3), ([10], 1e-2), (list(range(1, 11)), 1e-3)],
)
@pytest.mark.parametrize("seed", range(3))
def test_outliers_are_those_of_the_exact_spectrums_widest_gap(outliers: list[float], bulk: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    count = len(outliers)
    rest = torch.randn(2000 - count, generator=generator, dtype=torch.float64).abs() * bulk
    values = torch.cat([rest, torch.tensor(outliers, dtype=torch.float64)])
    density = spectral_density(Diagonal(values))
    assert density.num_outliers == count
    assert density.bulk_edge == pytest.approx(float(rest.max()), rel=0.05)
    assert density.outlier_gap == pytest.approx(min(outliers) / float(rest.max()), rel=0.05)


def test_a_spectrum_without_a_clear_gap_has_no_outliers() -> None:
    for values in (torch.linspace(0.1, 1, 400).double(), known_spectra()["semicircle"], torch.ones(100).double()):
        density = spectral_density(Diagonal(values))
        assert (density.num_outliers, density.bulk_edge, density.outlier_gap) in {
            (None, None, None)
        } or values.std() == 0


def test_an_edge_far_below_the_largest_eigenvalue_is_zero() -> None:
    values = torch.cat([torch.zeros(300), torch.tensor([3.0, 4.0])]).double()
    density = spectral_density(Diagonal(values))
    assert (density.num_outliers, density.bulk_edge) == (2, 0.0)


@pytest.mark.parametrize("num_steps", [20, 30, 60])
@pytest.mark.parametrize("seed", range(4))
def test_an_eigenvalue_that_is_repeated_is_one_outlier_however_often_its_copies_are_found(
    num_steps: int, seed: int
) -> None:
    bulk = np.random.default_rng(seed).uniform(0.5, 1, 500)
    density = spectral_density(Diagonal(torch.tensor([10.0] * 3 + [*bulk])), num_steps=num_steps, seed=seed)
    assert density.num_outliers == 1
    assert density.outlier_gap == pytest.approx(10 / bulk.max(), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_outlier_of_a_linear_layer_under_squared_error_is_the_one_of_its_inputs(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    inputs, layer = torch.randn(256, 40, dtype=dtype), torch.nn.Linear(40, 5, bias=False).to(dtype)
    inputs[:, 0] *= 4
    targets = torch.randn(256, 5, dtype=dtype)
    exact = torch.linalg.eigvalsh((inputs.T @ inputs).double() / 256 * 2 / 5).flip(0)  # five times each
    H = HessianOperator(lambda: torch.nn.functional.mse_loss(layer(inputs), targets), list(layer.parameters()))
    for seed in range(4):
        density = spectral_density(H, num_steps=30, seed=seed)
        assert density.num_outliers == 1
        assert density.outlier_gap == pytest.approx(float(exact[0] / exact[1]), rel=0.01)


@pytest.mark.parametrize("large", [960, 980, 1020, 1040])
def test_a_median_between_two_clusters_is_withheld_or_right(large: int) -> None:
    values = torch.tensor([1.0] * large + [0.01] * (2000 - large))
    exact = 1.0 if large > 1000 else 100.0
    for seed in range(40):
        found = spectral_density(Diagonal(values), seed=seed).estimate("condition")
        assert found.value is not None
        assert found.error is not None
        assert found.shown is None or abs(found.value - exact) <= found.error + 2e-3 * exact
