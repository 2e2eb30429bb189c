"""`hill_null` against draws of Gaussian matrices, and against published numbers of its mean."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_ww import analyze
from lightning_ww.weights.hill_null import hill_null
from lightning_ww.weights.power_law import hill_alpha


def drawn(N: int, M: int, slices: int, draws: int) -> np.ndarray:
    random = np.random.default_rng(7)
    found = []
    for _ in range(draws):
        singular = np.linalg.svd(random.standard_normal((slices, N, M)), compute_uv=False)
        found.append(hill_alpha(np.sort(np.square(singular).ravel())))
    return np.array(found)


@pytest.mark.parametrize(("N", "M", "mean"), [(64, 64, 2.165), (256, 64, 3.536), (512, 512, 2.127)])
def test_its_mean_is_the_known_one(N: int, M: int, mean: float) -> None:
    assert hill_null(N, M)[0] == pytest.approx(mean, abs=6e-4)


@pytest.mark.parametrize(
    ("N", "M", "slices", "draws"),
    [(64, 64, 1, 300), (256, 64, 1, 300), (48, 32, 9, 100), (64, 3, 9, 300), (400, 200, 1, 100)],
)
def test_mean_and_spread_are_those_of_drawn_gaussian_matrices(N: int, M: int, slices: int, draws: int) -> None:
    sample = drawn(N, M, slices, draws)
    mean, sd = hill_null(N, M, slices)
    # the law is that of large matrices: of a short side of 3 its mean is off by 0.6 standard deviations of one layer
    assert abs(sample.mean() - mean) < (0.5 if M >= 32 else 0.7) * sd
    error = (
        1 / (2 * draws) + 1 / 64
    ) ** 0.5  # the relative error of two standard deviations, from 100 and from 32 draws
    assert abs(np.log(sample.std(ddof=1) / sd)) < 3.5 * error


@pytest.mark.slow
def test_the_spread_of_large_matrices_is_that_of_drawn_ones() -> None:
    for N, M in [(512, 512), (2048, 512), (1024, 1024)]:
        sample = drawn(N, M, 1, 60)
        assert abs(np.log(sample.std(ddof=1) / hill_null(N, M)[1])) < 3.5 * (1 / 120 + 1 / 64) ** 0.5


def test_a_layer_has_it_where_the_floor_is_asked_for() -> None:
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 1))
    layer = analyze(model, floor=True)["0"]
    assert (layer.alpha_hill_null, layer.alpha_hill_null_sd) == hill_null(64, 64)
    assert layer.alpha_hill is not None
    assert abs(layer.alpha_hill - hill_null(64, 64)[0]) < 4 * hill_null(64, 64)[1]
    assert analyze(model)["0"].alpha_hill_null is None
