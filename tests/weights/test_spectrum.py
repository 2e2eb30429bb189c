"""Singular values against LAPACK's, and the numbers that follow from them against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.references import Array, gaussian, matrix_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eigvalsh_tridiagonal

from lightning_ww import _blas
from lightning_ww.weights.spectrum import (
    Spectrum,
    largest_singular_value,
    singular_values,
    storage_eps,
)

FLOAT32 = storage_eps(torch.float32)


def spectrum_of(matrix: Array, eps: float = FLOAT32, precise: bool = False) -> Spectrum:
    slices = matrix[None] if matrix.ndim == 2 else matrix
    return Spectrum(singular_values(slices, precise=precise), max(slices.shape[1:]), eps)


def in_float32(matrix: Array) -> Array:
    return matrix.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize(
    ("slices", "rows", "cols"), [(1, 40, 25), (1, 25, 40), (1, 70, 70), (9, 12, 20), (4, 90, 70), (9, 30, 1), (1, 1, 9)]
)
def test_singular_values_equal_lapacks(slices: int, rows: int, cols: int) -> None:
    matrices = np.random.default_rng(0).standard_normal((slices, rows, cols))
    expected = np.linalg.svd(matrices, compute_uv=False)[:, ::-1]
    np.testing.assert_allclose(singular_values(matrices), expected, rtol=1e-9)


def test_long_matrices_are_multiplied_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = gaussian(5000, 70)
    made = [singular_values(slices) for slices in (matrix[None], matrix.T[None], matrix[None].astype(np.float32))]
    monkeypatch.setattr("lightning_ww.weights.spectrum.CHUNK", 7000)
    again = [singular_values(slices) for slices in (matrix[None], matrix.T[None], matrix[None].astype(np.float32))]
    np.testing.assert_allclose(np.stack(again), np.stack(made), rtol=1e-12)


@pytest.mark.parametrize("ratio", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("shape", [(120, 80), (100, 100)])
def test_sv_min_of_float32_weights_has_five_digits_down_to_a_ratio_of_1e_5(
    ratio: float, shape: tuple[int, int]
) -> None:
    values = np.geomspace(1, ratio, min(shape))
    stored = in_float32(matrix_of(values, *shape))
    exact = np.linalg.svd(stored, compute_uv=False)[-1]
    assert spectrum_of(stored).sv_min == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("ratio", [1e-6, 1e-9, 1e-12])
def test_sv_min_of_float64_weights_is_exact_far_below(ratio: float) -> None:
    matrix = matrix_of(np.geomspace(1, ratio, 60), 90, 60)
    exact = np.linalg.svd(matrix, compute_uv=False)[-1]
    measured = spectrum_of(matrix, eps=storage_eps(torch.float64), precise=True)
    assert measured.sv_min == pytest.approx(exact, rel=1e-6)
    assert measured.matrix_rank == 60


def dead_rows(rows: int, cols: int, dead: int) -> Array:
    matrix = gaussian(rows, cols)
    matrix[3 : 3 + dead] = 0
    return matrix


def duplicate_rows(rows: int, cols: int, copies: int) -> Array:
    matrix = gaussian(rows, cols)
    matrix[3 : 3 + copies] = matrix[0]
    return matrix


@pytest.mark.parametrize(
    ("matrix", "rank"),
    [
        (gaussian(100, 60), 60),
        (gaussian(512, 512), 512),
        (dead_rows(64, 100, 7), 57),
        (dead_rows(200, 200, 50), 150),
        (duplicate_rows(64, 100, 5), 59),
        (gaussian(256, 32) @ gaussian(32, 256, 1), 32),
        (gaussian(100, 3) @ gaussian(3, 300, 1), 3),
        (np.ones((40, 30)), 1),
        (np.zeros((40, 30)), 0),
        (1e-20 * gaussian(100, 60), 60),
        (1e15 * gaussian(100, 10) @ gaussian(10, 60, 1), 10),
    ],
)
def test_rank_is_the_exact_one(matrix: Array, rank: int) -> None:
    measured = spectrum_of(in_float32(matrix))
    assert measured.matrix_rank == rank
    if rank < min(matrix.shape):
        assert measured.condition_number is None


def test_rank_of_a_healthy_large_square_layer_is_full() -> None:
    assert spectrum_of(in_float32(gaussian(1024, 1024))).matrix_rank == 1024


def smallest_over_largest(N: int, draws: int) -> Array:
    """s_min/s_max of square noise, from its bidiagonal form (Dumitriu, Edelman), whose law is that of the matrix."""
    random = np.random.default_rng(N)
    ratios = []
    for _ in range(draws):
        diagonal, below = (
            np.sqrt(random.chisquare(np.arange(N, 0, -1))),
            np.sqrt(random.chisquare(np.arange(N - 1, 0, -1))),
        )
        off = np.zeros(2 * N - 1)  # the eigenvalues of this form with a zero diagonal are ±s: no digit is lost
        off[0::2], off[1::2] = diagonal, below
        ends = [
            eigvalsh_tridiagonal(np.zeros(2 * N), off, select="i", select_range=(place, place))[0]
            for place in (N, 2 * N - 1)
        ]
        ratios.append(ends[0] / ends[1])
    return np.array(ratios)


@pytest.mark.parametrize(
    ("N", "draws"), [(64, 200), (512, 60), (2048, 12), pytest.param(8192, 200, marks=pytest.mark.slow)]
)
def test_healthy_square_noise_loses_no_rank_by_the_bidiagonal_model(N: int, draws: int) -> None:
    ratios = smallest_over_largest(N, draws)
    spectra = [Spectrum(np.array([[ratio, 1.0]]), N, FLOAT32) for ratio in ratios]
    lost = sum(spectrum.matrix_rank < 2 for spectrum in spectra)
    assert lost <= max(1, 0.02 * draws)  # the law: 4 eps N, one in 250 at 8192
    assert np.median(ratios) == pytest.approx(0.5 / N, rel=0.6)


@pytest.mark.parametrize("size", [64, 256, 1024])
def test_exactly_deficient_float64_matrices_have_their_rank(size: int) -> None:
    product = gaussian(size, size // 2) @ gaussian(size // 2, size, 1)
    repeated = gaussian(size, size // 2).repeat(2, axis=1)
    for matrix in (product, repeated):
        assert spectrum_of(matrix, eps=storage_eps(torch.float64), precise=True).matrix_rank == size // 2


def test_matrices_whose_iteration_does_not_converge_are_decomposed_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverges(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    for shape in ((2, 30, 20), (1, 90, 70)):
        slices = np.random.default_rng(0).standard_normal(shape)
        exact = singular_values(slices)
        with monkeypatch.context() as patched:
            patched.setattr(np.linalg, "eigvalsh", diverges)
            patched.setattr(_blas, "eigenvalues", diverges)
            np.testing.assert_allclose(singular_values(slices), exact, rtol=1e-9)
            patched.setattr(_blas, "singular_values", diverges)
            np.testing.assert_allclose(singular_values(slices), exact, rtol=1e-9)


def test_rank_is_summed_over_slices() -> None:
    slices = np.stack([gaussian(20, 10), dead_rows(20, 10, 15), np.zeros((20, 10))])
    assert spectrum_of(slices).matrix_rank == 10 + 5 + 0


def test_closed_forms_of_a_known_spectrum() -> None:
    values = np.array([4.0, 3.0, 2.0, 1.0])
    measured = spectrum_of(matrix_of(values, 9, 4))
    squares = values**2
    p = squares / squares.sum()
    assert measured.stable_rank == pytest.approx(30 / 16)
    assert measured.sv_max == pytest.approx(4)
    assert measured.sv_min == pytest.approx(1)
    assert measured.condition_number == pytest.approx(4)
    assert measured.shannon_entropy == pytest.approx(-(p * np.log(p)).sum())
    assert measured.log_sum_power(2.5) == pytest.approx(np.log10((squares**2.5).sum()))
    # scaled to mean 1: 32/15, 1.2, 8/15, 2/15; products 2.13, 2.56, 1.37, 0.18
    assert measured.determinant_constraint() == 4


def test_log_sum_power_does_not_overflow() -> None:
    values = np.full(10, 1e100)
    assert Spectrum(values[None], 10, FLOAT32).log_sum_power(50.0) == pytest.approx(200 * 50 + 1)


def test_determinant_constraint_of_equal_eigenvalues_is_all_of_them() -> None:
    assert Spectrum(np.full((1, 30), 2.0), 40, FLOAT32).determinant_constraint() == 30


def test_determinant_constraint_survives_a_product_that_would_overflow() -> None:
    values = np.sort(np.random.default_rng(0).pareto(1.0, 5000) + 1)
    measured = Spectrum(values[None], 6000, FLOAT32)
    logs = np.log((values**2)[::-1] * 5000 / (values**2).sum())
    expected = next(k for k in range(1, 5001) if logs[:k].sum() < 0)
    assert measured.determinant_constraint() == expected


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_invariants(rows: int, cols: int, seed: int) -> None:
    matrix = gaussian(rows, cols, seed)
    measured = spectrum_of(matrix)
    order = np.random.default_rng(seed).permutation(rows)
    for other in (matrix.T, matrix[order]):
        np.testing.assert_allclose(spectrum_of(other).eigenvalues, measured.eigenvalues, rtol=1e-6, atol=1e-9)
    assert 1 - 1e-9 <= measured.stable_rank <= measured.matrix_rank + 1e-9
    assert measured.eigenvalues.sum() == pytest.approx(np.square(matrix).sum())
    assert np.exp(measured.shannon_entropy) <= measured.matrix_rank + 1e-9


@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (30, 20)])
def test_largest_singular_value_equals_lapacks(shape: tuple[int, int]) -> None:
    matrix = matrix_of(np.arange(1, 21.0) ** -0.5, *shape) + gaussian(*shape) / 200
    assert largest_singular_value(matrix) == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-7)


def test_largest_singular_value_of_zero_is_zero() -> None:
    assert largest_singular_value(np.zeros((30, 20))) == 0
