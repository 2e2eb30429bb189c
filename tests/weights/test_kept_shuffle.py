"""A kept shuffle's numbers are as good as a new draw's, and it is given up in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lightning_ww.weights.elements import element_statistics
from lightning_ww.weights.kept_shuffle import KeptShuffle, Outline, bin_edges, outline
from lightning_ww.weights.noise import noise_spectrum
from lightning_ww.weights.shuffle import Shuffler, jensen_shannon_distance, trap_scores
from lightning_ww.weights.spectrum import singular_values

SHAPES = [(256, 128), (192, 192)]

ELEMENTS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Any]] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "uniform": lambda random, shape: random.uniform(-1, 1, shape),
    "Student-t 4.5": lambda random, shape: random.standard_t(4.5, shape),
    "Student-t 3": lambda random, shape: random.standard_t(3, shape),
    "masked": lambda random, shape: random.standard_normal(shape) * (random.random(shape) < 0.1),
    "mean": lambda random, shape: random.standard_normal(shape) + 0.3,
}


def _single(number: int) -> Callable[..., Any]:
    def moved(w: Any, t: float, random: np.random.Generator) -> Any:
        at, moved = random.choice(w.size, number, replace=False), w.copy()
        moved.flat[at] = t * 10 * w.size**0.25
        return moved

    return moved


def _columns(w: Any, t: float, random: np.random.Generator) -> Any:
    moved = w.copy()
    moved[:, : w.shape[1] // 8] *= 1 + 3 * t
    return moved


def _low_rank(w: Any, t: float, random: np.random.Generator) -> Any:
    rows, cols = w.shape
    return w + t * random.standard_normal((rows, 2)) @ random.standard_normal((2, cols))


MOVES: dict[str, Callable[[Any, float, np.random.Generator], Any]] = {
    "low rank": _low_rank,
    "noise": lambda w, t, random: w + t * random.standard_normal(w.shape),
    "heavier tails": lambda w, t, random: np.sign(w) * np.abs(w) ** (1 + t),
    "mean": lambda w, t, random: w + t,
    "an element": _single(1),
    "ten elements": _single(10),
    "columns": _columns,
    "mask": lambda w, t, random: w * (random.random(w.shape) > t),
    "soft threshold": lambda w, t, random: np.sign(w) * np.maximum(np.abs(w) - t, 0),
}


def described(matrix: Any) -> tuple[Any, Any, Outline]:
    slices = np.asarray(matrix, dtype=np.float32)[None]
    statistics = element_statistics(slices)
    return slices, statistics, outline(slices, statistics)


def last_kept(elements: str, move: str, shape: tuple[int, int]) -> tuple[Any, Any, Any]:
    """The farthest move at which a spectrum is kept: slices, their statistics, and the kept spectrum."""
    first = ELEMENTS[elements](np.random.default_rng(1), shape)
    first = first / first.std() + _low_rank(first, 0.3, np.random.default_rng(2)) - first
    slices, statistics, outlined = described(first)
    kept = outlined.keep(*noise_spectrum(Shuffler(0).shuffle(slices), statistics.mean), 0)
    found = slices, statistics, (kept.singular_values, kept.largest_centered)
    for t in np.geomspace(1e-5, 1, 34):
        slices, statistics, outlined = described(MOVES[move](first, t, np.random.default_rng(3)))
        if not outlined.is_like(kept, 0):
            break
        found = slices, statistics, outlined.rescaled(kept)
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("elements", ELEMENTS)
def test_numbers_differ_from_those_of_new_draws_by_no_more_than_two_draws_do(
    elements: str, shape: tuple[int, int]
) -> None:
    differences = []
    for move in MOVES:
        slices, statistics, kept = last_kept(elements, move, shape)
        own = np.square(singular_values(slices)).ravel()

        def numbers(shuffled: Any, largest: Any, own: Any = own, statistics: Any = statistics) -> list[float]:
            scores: list[Any] = [trap_scores(values, statistics) for values in (shuffled, largest[:, None])]
            return [
                jensen_shannon_distance(own, np.square(shuffled).ravel()),
                *(float(np.max(some)) for some in scores),
            ]

        draws = np.array(
            [numbers(*noise_spectrum(Shuffler(seed).shuffle(slices), statistics.mean)) for seed in range(8)]
        )
        differences.append((np.array(numbers(*kept)) - draws[0]) / draws.std(axis=0, ddof=1))
    of_distance, of_traps, of_centered_traps = np.transpose(differences)
    two_draws = 2**0.5  # standard deviations
    assert np.sqrt(np.mean(np.square(of_distance))) < two_draws
    assert np.sqrt(np.mean(np.square(of_traps))) < two_draws
    assert np.sqrt(np.mean(np.square(of_centered_traps))) < two_draws
    assert np.abs(differences).max() < 3 * two_draws


def test_singular_values_are_as_near_to_those_of_an_equally_random_shuffle_as_mirsky_says() -> None:
    random = np.random.default_rng(0)
    before = random.standard_t(5, (160, 130)).astype(np.float32)
    now = (before + 0.1 * random.standard_normal(before.shape)).astype(np.float32)
    order = Shuffler(0).shuffle(np.arange(before.size).reshape(1, *before.shape).astype(np.float64)).astype(int)[0]
    shuffled = before.ravel()[order]
    matched = np.sort(now, axis=None)[np.argsort(np.argsort(shuffled, axis=None))].reshape(before.shape)
    scale = np.linalg.norm(now) / np.linalg.norm(before)
    bound = np.linalg.norm(np.sort(now, axis=None) - scale * np.sort(before, axis=None))
    difference = np.linalg.svd(matched, compute_uv=False) - scale * np.linalg.svd(shuffled, compute_uv=False)
    assert np.linalg.norm(difference) <= bound < 0.1 * np.linalg.norm(now)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("elements", ELEMENTS)
def test_an_outline_is_that_of_the_sorted_elements_by_numpy(elements: str, dtype: Any) -> None:
    matrix = np.asarray(1e-3 * ELEMENTS[elements](np.random.default_rng(0), (150, 140)), dtype=dtype)
    found = outline(matrix[None], element_statistics(matrix[None]))
    ordered = np.sort(matrix, axis=None).astype(np.float64) / np.sqrt(np.square(matrix.astype(np.float64)).mean())
    count = found.means.shape[1]
    np.testing.assert_allclose(found.means[0, :16], ordered[:16], rtol=4e-3)
    np.testing.assert_allclose(found.means[0, -16:], ordered[-16:], rtol=4e-3)
    assert 256 < count < 512
    assert np.all(np.diff(found.means[0]) >= -1e-12)
    widths = ordered.size * np.array([0.25, 0.5, 0.75])
    edges = bin_edges(ordered.size)
    assert edges[0] == 0
    assert edges[-1] == ordered.size
    assert np.all(np.diff(edges) > 0)
    for width in widths:
        j = int(np.searchsorted(edges, width))
        inside = ordered[int(np.ceil(edges[j - 1])) : int(edges[j])]
        assert inside.min() - 4e-3 * abs(inside.min()) - 1e-9 <= found.means[0, j - 1] <= inside.max() + 4e-3


def test_the_same_elements_in_any_order_and_unit_are_alike() -> None:
    slices, _, outlined = described(np.random.default_rng(0).standard_t(4, (150, 140)))
    kept = outlined.keep(singular_values(slices), np.ones(1), 0)
    _, _, again = described(slices[0])
    assert again.is_of(kept)
    np.testing.assert_array_equal(again.rescaled(kept)[0], kept.singular_values)
    np.testing.assert_array_equal(again.rescaled(kept)[1], kept.largest_centered)
    _, _, scaled = described(4 * np.random.default_rng(1).permutation(slices[0].ravel()).reshape(150, 140))
    assert scaled.is_like(kept, 0)
    assert not scaled.is_of(kept)
    np.testing.assert_allclose(scaled.rescaled(kept)[0], 4 * kept.singular_values, rtol=1e-6)


def test_another_shape_seed_or_number_of_slices_is_not_alike() -> None:
    matrix = np.random.default_rng(0).standard_normal((160, 140))
    slices, _, outlined = described(matrix)
    kept = outlined.keep(singular_values(slices), np.ones(1), 0)
    assert outlined.is_like(kept, 0)
    assert not outlined.is_like(kept, 1)
    for other in (matrix.reshape(140, 160)[:, :-20], matrix.reshape(175, 128), matrix.reshape(2, 80, 140)):
        stack = np.asarray(other, dtype=np.float32).reshape(-1, *other.shape[-2:])
        assert not outline(stack, element_statistics(stack)).is_like(kept, 0)


def test_zeros_are_not_like_what_grows_out_of_them() -> None:
    _, _, zeros = described(np.zeros((130, 130)))
    kept = zeros.keep(np.zeros((1, 130)), np.zeros(1), 0)
    _, _, grown = described(np.random.default_rng(0).standard_normal((130, 130)))
    assert zeros.is_like(kept, 0)
    assert not grown.is_like(kept, 0)


def test_a_record_goes_through_a_checkpoint() -> None:
    slices, _, outlined = described(np.random.default_rng(0).standard_normal((130, 130)))
    kept = outlined.keep(singular_values(slices), np.ones(1), 3)
    again = KeptShuffle.of_state_dict(kept.state_dict())
    assert outlined.is_of(again)
    assert (again.N, again.seed) == (130, 3)
    np.testing.assert_array_equal(again.singular_values, kept.singular_values)
