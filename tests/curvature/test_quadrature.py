"""The quadrature's weights and its standard error, against exact traces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.spectra import Diagonal, known_spectra, network_like, symmetric

from lightning_ww.curvature import spectral_density


def test_as_many_simple_eigenvalues_as_dimensions_have_the_exact_trace() -> None:
    density = spectral_density(torch.diag(torch.arange(1.0, 61.0, dtype=torch.float64)), num_steps=60)
    assert density.trace == pytest.approx(1830)
    assert density.trace_stderr == 0


@pytest.mark.parametrize("multiplicity", [3, 10])
def test_small_multiplicities_are_not_taken_for_simple_eigenvalues(multiplicity: int) -> None:
    """As in the block of a linear layer under squared error: every eigenvalue is there once for each output."""
    single = torch.tensor(np.geomspace(0.01, 100, 40))
    values = single.repeat_interleave(multiplicity)
    errors: dict[str, list[float]] = {"plain": [], "reduced": []}
    for seed in range(30):
        for kind, seen in errors.items():
            density = spectral_density(torch.diag(values), num_steps=30, seed=seed, quadrature=kind)  # type: ignore[arg-type]
            seen.append(density.trace / float(values.sum()) - 1)
    plain, reduced = (float(np.sqrt(np.mean(np.square(errors[kind])))) for kind in ("plain", "reduced"))
    assert reduced < (1.1 if multiplicity == 10 else 2) * plain


@pytest.mark.parametrize("num_steps", [20, 40])
def test_reduced_variance_is_better_on_outliers_and_never_worse_than_plain(num_steps: int) -> None:
    bulk = 0.02 * np.random.default_rng(0).pareto(2, 980)
    values = torch.tensor(np.concatenate([bulk, np.geomspace(3, 300, 20)]))
    A = symmetric(values)
    errors: dict[str, list[float]] = {"plain": [], "reduced": []}
    for seed in range(12):
        for kind, seen in errors.items():
            density = spectral_density(A, num_steps=num_steps, seed=seed, quadrature=kind)  # type: ignore[arg-type]
            seen.append(density.trace / float(values.sum()) - 1)
    plain, reduced = (float(np.median(np.abs(errors[kind]))) for kind in ("plain", "reduced"))
    assert reduced < 0.3 * plain
    assert np.abs(errors["reduced"]).max() <= 1.05 * np.abs(errors["plain"]).max()
    for degenerate in (torch.eye(300), torch.diag(torch.tensor([1.0] * 150 + [4.0] * 150)), torch.eye(300) * 0.1):
        exact = float(degenerate.trace())
        for seed in range(5):
            one, other = (
                abs(spectral_density(degenerate, seed=seed, quadrature=kind).trace - exact)
                for kind in ("plain", "reduced")
            )
            assert other <= one + 1e-3 * exact


@pytest.mark.parametrize("num_probes", [1, 2, 8])
def test_two_standard_errors_cover_the_exact_trace_of_22_spectra_in_90_to_98_per_cent(num_probes: int) -> None:
    covered = []
    for number, values in enumerate(known_spectra().values()):
        for seed in range(100 * number, 100 * number + 8):
            density = spectral_density(Diagonal(values), num_probes=num_probes, seed=seed)
            assert density.trace_stderr is not None
            covered.append(abs(density.trace - float(values.sum())) <= 2 * density.trace_stderr + 1e-9)
    assert len(known_spectra()) == 22
    assert 0.90 <= np.mean(covered) <= 0.98


def test_fewer_steps_are_the_leading_part_of_more() -> None:
    A = symmetric(network_like())
    whole = spectral_density(A, num_steps=20, num_probes=2)
    leading, own = whole.leading(9), spectral_density(A, num_steps=9, num_probes=2)
    for name in ("nodes", "weights", "residuals", "diagonal", "off_diagonal"):
        torch.testing.assert_close(getattr(leading, name), getattr(own, name), rtol=1e-9, atol=1e-9)


def test_standard_error_of_the_trace_is_that_of_repeated_estimates() -> None:
    A = symmetric(network_like())
    single = [spectral_density(A, num_steps=30, seed=seed, quadrature="plain") for seed in range(60)]
    spread = float(np.std([density.trace for density in single]))
    assert np.median([density.trace_stderr for density in single]) == pytest.approx(spread, rel=0.4)
    several = spectral_density(A, num_steps=30, num_probes=30, quadrature="plain")
    assert several.trace_stderr == pytest.approx(spread / 30**0.5, rel=0.5)
    assert several.num_probes == 30
