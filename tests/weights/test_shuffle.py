"""The shuffle's numbers against scipy, drawn matrices and planted elements."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.references import Array, gaussian, matrix_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from lightning_ww.weights.elements import element_statistics
from lightning_ww.weights.marchenko_pastur import tracy_widom_threshold
from lightning_ww.weights.shuffle import (
    Shuffler,
    floor_of_shape,
    jensen_shannon_distance,
    predicted_spectra,
    rank_deficit,
    trap_scores,
)
from lightning_ww.weights.spectrum import singular_values


def traps(slices: Array, seed: int = 0) -> int:
    statistics = element_statistics(slices)
    scores = trap_scores(singular_values(Shuffler(seed).shuffle(slices)), statistics)
    assert scores is not None
    return int((scores > tracy_widom_threshold(slices.shape[0])).sum())


def test_jensen_shannon_distance_equals_scipys() -> None:
    random = np.random.default_rng(0)
    for _ in range(10):
        p, q = random.pareto(1, 50), random.pareto(2, 50)
        assert jensen_shannon_distance(p, q) == pytest.approx(jensenshannon(np.sort(p), np.sort(q)), rel=1e-10)


def test_jensen_shannon_distance_at_its_ends() -> None:
    assert jensen_shannon_distance(np.array([1.0, 2, 3]), np.array([3.0, 1, 2])) == 0
    assert jensen_shannon_distance(np.array([0.0, 0, 1]), np.array([1e-300, 1.0, 1.0])) == pytest.approx(
        jensenshannon([0, 0, 1.0], [1e-300, 1.0, 1.0])
    )


@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_shuffle_keeps_each_slices_elements(count: int, rows: int, cols: int, seed: int) -> None:
    slices = np.random.default_rng(seed).standard_normal((count, rows, cols))
    shuffled = Shuffler(seed).shuffle(slices)
    assert shuffled.shape == slices.shape
    for before, after in zip(slices, shuffled, strict=True):
        np.testing.assert_array_equal(np.sort(before, axis=None), np.sort(after, axis=None))
        assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before))


def test_shuffle_depends_on_seed_size_and_draw_alone() -> None:
    slices = gaussian(20, 30)[None]
    global_state = np.random.get_state()[1].copy()  # type: ignore[index]
    shuffler = Shuffler(3)
    first = shuffler.shuffle(slices)
    np.testing.assert_array_equal(shuffler.shuffle(slices), first)
    np.testing.assert_array_equal(Shuffler(3, max_cached_bytes=0).shuffle(slices), first)
    for other in (
        Shuffler(4).shuffle(slices),
        shuffler.shuffle(np.concatenate([slices, slices]))[1:],
        shuffler.shuffle(slices, draw=1),
    ):
        assert not np.array_equal(other, first)
    np.testing.assert_array_equal(np.random.get_state()[1], global_state)  # type: ignore[index]


def test_permutations_are_kept_up_to_the_limit() -> None:
    shuffler = Shuffler(max_cached_bytes=4 * 600)
    shuffler.shuffle(gaussian(20, 30)[None])
    shuffler.shuffle(gaussian(30, 20)[None])  # of the same size
    shuffler.shuffle(gaussian(20, 31)[None])  # for which no space is left
    assert list(shuffler._cache) == [(0, 0, 600)]


@pytest.mark.parametrize(("N", "M"), [(128, 128), (256, 64)])
def test_noise_has_at_most_half_a_per_cent_of_false_traps_in_200_draws(N: int, M: int) -> None:
    found = [traps(gaussian(N, M, seed)[None], seed) for seed in range(200)]
    assert sum(count > 0 for count in found) <= 1


def planted(M: int, size: float, seed: int, N: int | None = None) -> Array:
    """Noise with one element of ``size`` times the visibility threshold."""
    N = N or M
    weight = gaussian(N, M, seed)
    weight[N // 3, M // 2] = size * (N * M) ** 0.25
    return weight[None]


@pytest.mark.parametrize(("N", "M"), [(128, 128), (256, 128), (256, 256)])
def test_a_planted_element_of_1_6_thresholds_is_one_trap(N: int, M: int) -> None:
    assert [traps(planted(M, 1.6, seed, N), seed) for seed in range(20)] == [1] * 20


def test_a_planted_element_of_1_6_thresholds_is_one_trap_nineteen_times_of_twenty_at_64() -> None:
    assert sum(traps(planted(64, 1.6, seed), seed) == 1 for seed in range(100)) >= 95


@pytest.mark.parametrize("M", [64, 128, 256])
def test_a_planted_element_of_0_7_thresholds_is_none(M: int) -> None:
    assert [traps(planted(M, 0.7, seed), seed) for seed in range(20)] == [0] * 20


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.1])
@pytest.mark.parametrize(("N", "M"), [(256, 256), (512, 256), (400, 300)])
def test_predicted_spectrum_differs_from_a_draw_by_less_than_two_draws_differ(N: int, M: int, shift: float) -> None:
    slices = (0.05 * (gaussian(N, M) + shift))[None]
    statistics = element_statistics(slices)
    assert statistics.predictable
    predictions = predicted_spectra(slices, statistics)
    predicted = predictions.mean(axis=0)
    drawn = [singular_values(Shuffler(seed).shuffle(slices)) for seed in range(6)]
    trained = matrix_of(np.linspace(0.1, 3, M), N, M)
    squares = np.square(np.linalg.svd(trained, compute_uv=False))
    exact = [jensen_shannon_distance(squares, np.square(draw).ravel()) for draw in drawn]
    analytic = [jensen_shannon_distance(squares, np.square(prediction).ravel()) for prediction in predictions]
    assert abs(np.mean(analytic) - np.mean(exact)) < 2 * np.std(exact, ddof=1)
    between = np.mean([jensen_shannon_distance(np.square(d).ravel(), np.square(drawn[0]).ravel()) for d in drawn[1:]])
    to_draws = np.mean([jensen_shannon_distance(np.square(d).ravel(), np.square(predicted).ravel()) for d in drawn])
    assert to_draws < between
    assert predicted.max() == pytest.approx(np.mean([draw.max() for draw in drawn]), rel=0.02)
    scores = trap_scores(predicted, statistics)
    exact_scores = trap_scores(drawn[0], statistics)
    assert scores is not None
    assert exact_scores is not None
    assert (scores > 3.27).sum() == (exact_scores > 3.27).sum()


def relu_like(slices: Array) -> Array:
    return np.maximum(slices, 0)


@pytest.mark.parametrize(
    ("shape", "distribution"),
    [
        ((1, 512, 512), "uniform"),
        ((9, 256, 256), "uniform"),
        ((9, 256, 256), "half of it zero"),
        ((9, 256, 512), "Student t8"),
        ((1, 1024, 256), "Gaussian"),
    ],
)
def test_predicted_distance_of_noise_is_that_of_drawn_shuffles(shape: tuple[int, int, int], distribution: str) -> None:
    random = np.random.default_rng(5)
    slices = {
        "uniform": lambda: random.uniform(-1, 1, shape),
        "half of it zero": lambda: relu_like(random.uniform(-1, 1, shape)),
        "Student t8": lambda: random.standard_t(8, shape).astype(np.float32).astype(np.float64),
        "Gaussian": lambda: random.standard_normal(shape),
    }[distribution]()
    own = np.square(singular_values(slices)).ravel()
    drawn = [
        jensen_shannon_distance(own, np.square(singular_values(Shuffler(seed).shuffle(slices))).ravel())
        for seed in range(8)
    ]
    predictions = predicted_spectra(slices, element_statistics(slices))
    predicted = np.mean([jensen_shannon_distance(own, np.square(p).ravel()) ** 2 for p in predictions]) ** 0.5
    assert abs(predicted - np.mean(drawn)) < 2.5 * np.std(drawn, ddof=1)
    np.testing.assert_allclose(
        np.square(predictions).sum(axis=2), np.broadcast_to(np.square(slices).sum(axis=(1, 2)), predictions.shape[:2])
    )


@pytest.mark.parametrize(
    "weight",
    [
        gaussian(512, 255),  # too small
        np.random.default_rng(0).standard_t(4, (300, 300)),  # heavy-tailed
        planted(300, 0.6, 0)[0],  # an element more than half as large as would show
        np.where(np.random.default_rng(0).uniform(size=(300, 300)) < 0.9, 0, gaussian(300, 300)),  # sparse
        np.ones((300, 300)),
    ],
    ids=["small", "heavy-tailed", "large element", "sparse", "constant"],
)
def test_shuffles_that_cannot_be_predicted_are_drawn(weight: Array) -> None:
    assert not element_statistics(weight[None]).predictable


def test_rank_deficit_counts_what_fell_below_a_tenth() -> None:
    shuffled = np.array([[1.0, 2, 3, 4], [1, 2, 3, 4]])
    values = np.array([[0.1, 0.3, 0.2, 4], [0, 0, 0, 0]])  # 0.1 ≤ 0.1, 0.2 ≤ 0.3; a zero slice counts in full
    assert rank_deficit(values, shuffled) == 6 / 8


@pytest.mark.parametrize(("count", "N", "M"), [(1, 256, 256), (1, 512, 256), (2, 300, 260), (1, 1024, 512)])
@pytest.mark.parametrize("kind", ["normal", "uniform", "sparse", "positive", "shifted"])
def test_the_floor_of_a_shape_is_that_of_a_layers_own_shuffle(count: int, N: int, M: int, kind: str) -> None:
    random = np.random.default_rng(M)
    made: dict[str, Array] = {
        "normal": 3 * random.standard_normal((count, N, M)) + 0.01,
        "uniform": random.uniform(-1, 1, (count, N, M)),
        "sparse": random.standard_normal((count, N, M)) * (random.random((count, N, M)) < 0.6),  # excess kurtosis 2
        "positive": np.maximum(random.uniform(-1, 1, (count, N, M)), 0),
        "shifted": random.standard_normal((count, N, M)) + 0.5,
    }
    slices = made[kind]
    statistics = element_statistics(slices)
    assert statistics.predictable
    predicted = np.square(predicted_spectra(slices, statistics)).reshape(-1, count * M)
    own = [np.square(singular_values(Shuffler(seed).shuffle(slices))).ravel() for seed in range(6)]
    floors = [jensen_shannon_distance(noise, predicted) for noise in own]
    shared = floor_of_shape(N, M, count) * statistics.noise_share**0.5
    assert shared == pytest.approx(np.mean(floors), rel=0.15)  # one draw for six


def test_alike_elements_have_no_edge() -> None:
    statistics = element_statistics(np.full((1, 20, 20), 0.1))
    assert trap_scores(np.ones((1, 20)), statistics) is None
    assert statistics.trap_element is None
    assert statistics.trap_mean_shift is None
