"""Distances from init against their definitions in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.references import gaussian

from lightning_ww.weights.drift import distance_from_init


def test_distances_equal_their_definitions() -> None:
    before = np.random.default_rng(0).standard_normal((3, 8, 5))
    after = before + 0.1 * np.random.default_rng(1).standard_normal((3, 8, 5))
    drift = distance_from_init(after, before, cka=True)
    norms = np.linalg.norm(before), np.linalg.norm(after)
    assert drift.distance_from_init == pytest.approx(np.linalg.norm(after - before))
    assert drift.distance_from_init_relative == pytest.approx(np.linalg.norm(after - before) / norms[0])
    assert drift.distance_from_init_cosine == pytest.approx(1 - (before * after).sum() / norms[0] / norms[1])
    w, w0 = (np.concatenate(list(x), axis=1) for x in (after, before))  # rows × (slices · cols)
    cka = np.linalg.norm(w.T @ w0) ** 2 / np.linalg.norm(w.T @ w) / np.linalg.norm(w0.T @ w0)
    assert drift.distance_from_init_cka == pytest.approx(1 - cka)


@pytest.mark.parametrize("shape", [(40, 10), (10, 40)])
def test_cka_of_tall_and_wide_matrices_equals_its_definition(shape: tuple[int, int]) -> None:
    w, w0 = gaussian(*shape, seed=1), gaussian(*shape, seed=2)
    cka = np.linalg.norm(w.T @ w0) ** 2 / np.linalg.norm(w.T @ w) / np.linalg.norm(w0.T @ w0)
    assert distance_from_init(w[None], w0[None], cka=True).distance_from_init_cka == pytest.approx(1 - cka)


def test_nothing_moved() -> None:
    w = gaussian(6, 4)[None]
    drift = distance_from_init(w, w, cka=True)
    assert drift.distance_from_init == 0
    assert drift.distance_from_init_relative == 0
    assert drift.distance_from_init_cosine == 0
    assert drift.distance_from_init_cka == pytest.approx(0, abs=1e-12)


def test_cosine_keeps_its_digits_where_the_two_are_nearly_parallel() -> None:
    w = gaussian(30, 30)
    across = gaussian(30, 30, 1)
    across -= (across * w).sum() / (w * w).sum() * w
    across *= 1e-9 * np.linalg.norm(w) / np.linalg.norm(across)
    cosine = distance_from_init((w + across)[None], w[None]).distance_from_init_cosine
    assert cosine == pytest.approx(0.5e-18, rel=1e-3)


def test_a_zero_beginning_has_a_distance_but_no_direction() -> None:
    drift = distance_from_init(np.ones((1, 3, 3)), np.zeros((1, 3, 3)), cka=True)
    assert drift.distance_from_init == 3
    assert drift.distance_from_init_relative is None
    assert drift.distance_from_init_cosine is None
    assert drift.distance_from_init_cka is None
