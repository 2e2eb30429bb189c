"""The package's own BLAS against numpy, at one thread, while numpy keeps its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from helpers.references import gaussian
from threadpoolctl import threadpool_info, threadpool_limits

from lightning_ww import _blas

EVERY_OTHER = gaussian(60, 80)[::2, ::2]
STORED = {
    "rows": gaussian(30, 40),
    "columns": gaussian(40, 30).T,
    "a part of wider rows": gaussian(30, 90)[:, 7:47],
    "a part of longer columns": gaussian(90, 30)[7:47].T,
    "neither rows nor columns": EVERY_OTHER,
    "a single row": gaussian(1, 40),
}


@pytest.mark.parametrize("stored", STORED)
def test_products_equal_numpys(stored: str) -> None:
    matrix = STORED[stored]
    np.testing.assert_allclose(_blas.gram(matrix), matrix.T @ matrix, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(_blas.product(matrix, matrix.T), matrix @ matrix.T, rtol=1e-12, atol=1e-12)
    other = gaussian(40, 3)
    np.testing.assert_allclose(_blas.product(matrix, other), matrix @ other, rtol=1e-12, atol=1e-12)


def test_a_gram_matrix_is_added_to_in_its_upper_triangle() -> None:
    total, matrix = np.ones((40, 40)), gaussian(30, 40)
    _blas.add_gram(total, matrix)
    np.testing.assert_allclose(np.triu(total), np.triu(1 + matrix.T @ matrix), rtol=1e-12, atol=1e-12)
    assert (total[np.tril_indices(40, -1)] == 1).all()


@pytest.mark.parametrize("order", [1, 2, 63, 200])
def test_eigenvalues_of_the_upper_triangle_equal_numpys(order: int) -> None:
    symmetric = gaussian(order, order) + gaussian(order, order).T
    expected = np.linalg.eigvalsh(symmetric)
    np.testing.assert_allclose(_blas.eigenvalues(np.triu(symmetric)), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(1, 1), (50, 30), (30, 50), (1, 9)])
def test_singular_values_equal_numpys(shape: tuple[int, int]) -> None:
    matrix = gaussian(*shape)
    expected = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(_blas.singular_values(matrix), expected, rtol=1e-12)


def test_what_is_not_finite_is_an_error() -> None:
    with pytest.raises(np.linalg.LinAlgError, match="did not converge"):
        _blas.eigenvalues(np.full((70, 70), np.nan))


def test_one_thread_is_held_and_numpy_keeps_its_own() -> None:
    with threadpool_limits(3):  # somebody sets all BLAS libraries of the process
        before = {library["filepath"]: library["num_threads"] for library in threadpool_info()}
        _blas.gram(np.eye(2))
        after = {library["filepath"]: library["num_threads"] for library in threadpool_info()}
    changed = {path for path in before if before[path] != after[path]}
    assert [path for path in changed if "scipy_openblas64" not in path] == []
    assert all(after[path] == 1 for path in after if "/scipy_openblas64/" in path)
    assert any("/scipy_openblas64/" in path for path in after)


def test_scipy_loaded_after_it_computes_as_without_it() -> None:
    script = """
import sys
import numpy as np
if "with" in sys.argv:
    from lightning_ww import _blas
    _blas.singular_values(np.eye(3))
import scipy.linalg
from scipy.linalg import lapack
matrix = np.random.default_rng(0).standard_normal((300, 200))
print(lapack.dgesdd_lwork(1152, 384, compute_uv=0), lapack.sgesdd_lwork(1152, 384), scipy.linalg.svdvals(matrix).sum())
print("scipy_openblas64" in sys.modules)
"""
    said = [
        subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True).stdout
        for arguments in ([], ["with"])
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_product_of_an_upper_triangle_with_a_vector_equals_numpys(dtype: type[np.floating]) -> None:
    matrix = gaussian(50, 50).astype(dtype)
    vector = gaussian(50, 1)[:, 0].astype(dtype)
    whole = np.triu(matrix) + np.triu(matrix, 1).T
    found = _blas.symmetric_product(np.where(np.tri(50, k=-1) > 0, np.nan, matrix).astype(dtype), vector)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, whole @ vector, rtol=0, atol=float(np.finfo(dtype).eps) * 200)


@pytest.mark.parametrize("order", [1, 2, 30])
def test_the_largest_eigenvalue_of_a_tridiagonal_matrix_equals_numpys(order: int) -> None:
    diagonal, beside = gaussian(order, 1)[:, 0], np.abs(gaussian(order, 2)[1:, 1])
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, -1))
    value, last = _blas.largest_of_tridiagonal(diagonal, beside)
    assert value == pytest.approx(values[-1], rel=1e-12)
    assert abs(last) == pytest.approx(abs(vectors[-1, -1]), abs=1e-9)
