"""The spectrum of a drawn shuffle against LAPACK's singular values in float64, with and without the mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lightning_ww.weights.elements import element_statistics
from lightning_ww.weights.marchenko_pastur import edge_statistics
from lightning_ww.weights.noise import noise_spectrum
from lightning_ww.weights.shuffle import Shuffler, predicted_spectra

SHAPES = [(1, 60, 40), (3, 30, 64), (1, 300, 200), (2, 90, 130), (1, 450, 400), (1, 400, 900), (1, 600, 600)]


def elements(shape: tuple[int, int, int], mean: float = 0.0, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_t(4.5, shape) + mean


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mean", [0.0, 0.05, 3.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_has_lapacks_singular_values(shape: tuple[int, int, int], mean: float, dtype: Any) -> None:
    slices = elements(shape, mean).astype(dtype)
    means = slices.mean(axis=(1, 2), dtype=np.float64)
    values, largest = noise_spectrum(slices, means)
    exact = [np.linalg.svd(matrix.astype(np.float64), compute_uv=False) for matrix in slices]
    centered = [
        np.linalg.svd(matrix.astype(np.float64) - m, compute_uv=False)[0]
        for matrix, m in zip(slices, means, strict=True)
    ]
    np.testing.assert_allclose(np.square(values), np.square(np.sort(exact, axis=1)), atol=2e-6 * np.max(exact) ** 2)
    np.testing.assert_allclose(largest, centered, rtol=1e-6)


@pytest.mark.parametrize("shape", [(450, 400), (600, 600), (2000, 500)], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_the_largest_value_by_lanczos_is_good_to_a_thousandth_of_the_scatter_of_noise(
    shape: tuple[int, int], seed: int
) -> None:
    slices = elements((1, *shape), 0.1, seed).astype(np.float32)
    means = slices.mean(axis=(1, 2), dtype=np.float64)
    _, (largest,) = noise_spectrum(slices, means)
    exact = np.linalg.svd(slices[0].astype(np.float64) - means[0], compute_uv=False)[0]
    _, tau = edge_statistics(*shape)
    assert abs(largest**2 - exact**2) < 1e-3 * tau * slices.var()


@pytest.mark.parametrize("unit", [1e-30, 1e-3, 1.0, 1e30])
def test_it_holds_at_any_scale(unit: float) -> None:
    slices = (unit * elements((1, 300, 200))).astype(np.float32)
    values, largest = noise_spectrum(slices, np.zeros(1))
    exact = np.linalg.svd(slices[0].astype(np.float64) / unit, compute_uv=False)[::-1]
    np.testing.assert_allclose(values[0] / unit, exact, rtol=2e-6)
    np.testing.assert_allclose(largest / unit, exact[-1], rtol=2e-6)


def test_one_dominant_singular_value_costs_the_others_no_digits() -> None:
    slices = (elements((1, 300, 200)) + 100).astype(np.float32)
    values, _ = noise_spectrum(slices, np.zeros(1))
    np.testing.assert_allclose(
        values[0], np.linalg.svd(slices[0].astype(np.float64), compute_uv=False)[::-1], rtol=1e-6
    )


def test_a_prediction_without_the_mean_lacks_its_spike_alone() -> None:
    slices = np.random.default_rng(0).standard_normal((1, 400, 300)).astype(np.float32) + np.float32(0.3)
    statistics = element_statistics(slices)
    drawn = noise_spectrum(Shuffler(0).shuffle(slices), statistics.mean)
    plain, centered = (predicted_spectra(slices, statistics, is_centered=one) for one in (False, True))
    assert plain[..., -1].mean() == pytest.approx(drawn[0][0, -1], rel=0.02)
    assert centered[..., -1].mean() == pytest.approx(drawn[1][0], rel=0.02)
    assert plain[..., -1].min() > 2 * centered[..., -1].max()
