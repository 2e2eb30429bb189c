"""The noise laws against numerical integration, published quantiles and drawn matrices."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.references import gaussian, marchenko_pastur_cdf, squares
from scipy.stats import ks_2samp

from lightning_ww.weights.marchenko_pastur import (
    TRACY_WIDOM_MEAN,
    bulk_density,
    bulk_quantiles,
    edge_statistics,
    fit_marchenko_pastur,
    noise_eigenvalues,
    spike_position,
    tracy_widom_cdf,
    tracy_widom_threshold,
    with_kurtosis,
)


@pytest.mark.parametrize(
    ("point", "probability"), [(-3.89543, 0.01), (-1.26858, 0.5), (0.45014, 0.9), (0.97931, 0.95), (2.02345, 0.99)]
)
def test_tracy_widom_cdf_equals_published_quantiles(point: float, probability: float) -> None:
    assert tracy_widom_cdf(point) == pytest.approx(probability, abs=2e-5)


def test_tracy_widom_mean_is_the_integral_of_the_cdf_by_parts() -> None:
    # ∫ s dF = b - ∫ F ds from where F is 0 to b, where it is 1; its slope vanishes at both ends, so few points will do
    grid = np.linspace(-8.0, 8.0, 61)
    integral = np.trapezoid([tracy_widom_cdf(float(s)) for s in grid], grid)
    assert grid[-1] - integral == pytest.approx(TRACY_WIDOM_MEAN, abs=1e-8)


def test_threshold_of_one_slice_is_3_27_and_grows_with_the_slices() -> None:
    assert tracy_widom_threshold(1) == pytest.approx(3.2724, abs=1e-3)
    assert tracy_widom_cdf(tracy_widom_threshold(25)) == pytest.approx(1 - 0.001 / 25, abs=1e-9)


@pytest.mark.parametrize(("N", "M"), [(60, 40), (300, 100), (2000, 500)])
def test_bulk_quantiles_equal_the_integrated_law(N: int, M: int) -> None:
    quantiles = bulk_quantiles(N, M)[:-1]  # the last is the Tracy–Widom mean
    np.testing.assert_allclose(marchenko_pastur_cdf(quantiles, N, M), (np.arange(M - 1) + 0.5) / M, atol=2e-4)


@pytest.mark.parametrize(("N", "M"), [(1024, 256), (600, 300), (512, 512)])
def test_bulk_quantiles_are_a_drawn_matrixs_eigenvalues(N: int, M: int) -> None:
    drawn = np.mean([squares(gaussian(N, M, seed)) for seed in range(5)], axis=0)
    quantiles = bulk_quantiles(N, M)
    assert np.abs(quantiles - drawn).max() < 0.02 * drawn[-1]
    assert quantiles.sum() == pytest.approx(N * M, rel=0.01)  # the trace


@pytest.mark.parametrize(("N", "M"), [(256, 128), (200, 200), (1000, 64)])
def test_largest_eigenvalue_of_noise_follows_tracy_widom(N: int, M: int) -> None:
    mu, tau = edge_statistics(N, M)
    z = np.array([(np.linalg.norm(gaussian(N, M, seed), 2) ** 2 - mu) / tau for seed in range(100)])
    assert z.mean() == pytest.approx(TRACY_WIDOM_MEAN, abs=0.4)  # four standard errors and the finite size
    assert z.std() == pytest.approx(1.27, abs=0.3)


@pytest.mark.parametrize("excess", [1.3, 2.0, 4.0])
@pytest.mark.parametrize(("N", "M"), [(600, 300), (400, 400)])
def test_spike_position_is_that_of_a_planted_rank_one_part(N: int, M: int, excess: float) -> None:
    strength = excess * (N * M) ** 0.25
    random = np.random.default_rng(0)
    u, v = random.standard_normal(N), random.standard_normal(M)
    planted = strength * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    measured = np.mean([np.linalg.norm(gaussian(N, M, seed) + planted, 2) ** 2 for seed in range(4)])
    assert spike_position(strength, N, M) == pytest.approx(measured, rel=0.03)


def test_weak_rank_one_part_has_no_spike() -> None:
    assert spike_position(0.99 * (400 * 300) ** 0.25, 400, 300) is None


@pytest.mark.parametrize(("N", "M"), [(600, 300), (400, 400), (900, 100)])
def test_fit_finds_the_edges_and_spikes_of_a_known_matrix(N: int, M: int) -> None:
    clean = fit_marchenko_pastur(squares(3 * gaussian(N, M)), N, M)
    assert clean.bulk_max == pytest.approx(9 * (N**0.5 + M**0.5) ** 2, rel=0.03)
    assert clean.bulk_min == pytest.approx(9 * (N**0.5 - M**0.5) ** 2, rel=0.1, abs=1e-9)
    assert clean.num_spikes == 0
    assert clean.mp_softrank == pytest.approx(1, abs=0.1)
    random = np.random.default_rng(1)
    weight = gaussian(N, M) + 4 * (N * M) ** 0.25 / (N * M) ** 0.5 * sum(
        np.outer(random.choice([-1, 1], N), random.choice([-1, 1], M)) for _ in range(2)
    )
    spiked = fit_marchenko_pastur(squares(weight), N, M)
    assert spiked.num_spikes == 2
    assert spiked.mp_softrank < 0.5


def test_zero_spectrum_has_no_bulk() -> None:
    with pytest.raises(ValueError, match=r"^all eigenvalues are zero$"):
        fit_marchenko_pastur(np.zeros(20), 40, 20)


def test_the_bulk_is_that_of_noise_by_its_quantiles() -> None:
    N, M, variance = 300, 100, 0.25
    low, high = (variance * (N**0.5 + sign * M**0.5) ** 2 for sign in (-1, 1))
    x = np.linspace(low, high, 200_001)[1:-1]
    cdf = np.cumsum(bulk_density(x, N, M, variance)) * (x[1] - x[0])
    assert cdf[-1] == pytest.approx(1, abs=1e-4)
    places = np.interp((np.arange(M) + 0.5) / M, cdf, x)
    np.testing.assert_allclose(places[:-1], variance * bulk_quantiles(N, M)[:-1], rtol=1e-3)
    assert not bulk_density(np.array([low * 0.9, high * 1.1]), N, M, variance).any()


@pytest.mark.parametrize(("N", "M"), [(30, 30), (60, 20), (50, 1)])
def test_noise_eigenvalues_have_the_law_of_drawn_matrices(N: int, M: int) -> None:
    drawn = np.array([squares(gaussian(N, M, seed)) for seed in range(800)])
    bidiagonal = noise_eigenvalues(N, M, 800)
    for place in {0, M // 2, M - 1}:
        assert ks_2samp(drawn[:, place], bidiagonal[:, place]).pvalue > 1e-3
    assert not np.array_equal(bidiagonal, noise_eigenvalues(N, M, 800, 1))


def test_kurtosis_moves_noise_as_it_moves_drawn_uniform_matrices() -> None:
    N, M = 60, 40
    random = np.random.default_rng(0)
    uniform = np.mean([squares(random.uniform(-(3**0.5), 3**0.5, (N, M))) for _ in range(3000)], axis=0)
    noise = noise_eigenvalues(N, M, 3000).mean(axis=0)
    moved = with_kurtosis(noise, N, M, -1.2)
    places = slice(4, -4)
    assert np.abs(moved / uniform - 1)[places].max() < 0.3 * np.abs(noise / uniform - 1)[places].max()
    # the second moment is exact: E Σλ² = NM (N + M + 1 + κ)
    assert np.square(moved).sum() - np.square(noise).sum() == pytest.approx(-1.2 * N * M, rel=0.1)
