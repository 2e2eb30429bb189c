"""Gram matrices, eigenvalues and singular values on one thread, by an OpenBLAS that is this package's own.

A decomposition by several threads waits at each step for the slowest. On busy cores that takes tens of times as long, in
wall time and in CPU time (`benchmarks/threads.md`). The number of threads of numpy's BLAS is a setting of the whole process,
which others would see. So the wheel ``scipy-openblas64``, which holds numpy's OpenBLAS for those who build packages, is loaded
beside it, and held at one thread. Its calls release Python's lock, so that several layers can be decomposed side by side.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Floats = NDArray[np.floating]

ROW_MAJOR, UPPER, NO_TRANSPOSE, TRANSPOSE = 101, 121, 111, 112
"""CBLAS's codes."""

_Code, _Integer, _Address = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p


def _library() -> ctypes.CDLL:
    """The library, at one thread, also if somebody has changed the setting of all BLAS libraries of the process."""
    library = _loaded()
    library.scipy_openblas_set_num_threads64_(1)
    return library


@lru_cache(maxsize=1)
def _loaded() -> ctypes.CDLL:
    # the package itself is not imported: that would load the library for the whole process, and scipy's LAPACK, loaded later,
    # would call it with integers of another length
    package = importlib.util.find_spec("scipy_openblas64")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("lightning_ww needs the package `scipy-openblas64`: pip install scipy-openblas64")
    files = (Path(package.origin).parent / "lib").glob("libscipy_openblas64_*")
    library = ctypes.CDLL(str(next(path for path in files if path.suffix in (".so", ".dylib", ".dll"))))
    one_matrix, size = (_Address, _Integer), _Integer
    for letter, number in (("s", ctypes.c_float), ("d", ctypes.c_double)):
        syrk = getattr(library, f"scipy_cblas_{letter}syrk64_")
        syrk.argtypes = [*[_Code] * 3, size, size, number, *one_matrix, number, *one_matrix]
        syrk.restype = None
        symv = getattr(library, f"scipy_cblas_{letter}symv64_")
        symv.argtypes = [_Code, _Code, size, number, *one_matrix, *one_matrix, number, *one_matrix]
        symv.restype = None
    library.scipy_cblas_dgemm64_.argtypes = [
        *[_Code] * 3, size, size, size, ctypes.c_double, *one_matrix, *one_matrix, ctypes.c_double, *one_matrix,
    ]  # fmt: skip
    for name in ("scipy_cblas_dgemm64_", "scipy_dsyevd_64_", "scipy_dgesdd_64_", "scipy_dstevx_64_"):
        getattr(library, name).restype = None
    return library


def add_gram(total: Floats, rows: Floats) -> None:
    """Add ``rows.T @ rows`` to the upper triangle of ``total``, in float32 or in float64.

    Args:
        total: Shape ``(M, M)``, contiguous.
        rows: Shape ``(n, M)``, of the same dtype; it, or its transpose, has adjacent elements along the last axis.
    """
    order = rows.shape[1]
    code, stored, step = _stored(rows)
    syrk = _library().scipy_cblas_ssyrk64_ if total.dtype == np.float32 else _library().scipy_cblas_dsyrk64_
    syrk(
        *(ROW_MAJOR, UPPER, NO_TRANSPOSE + TRANSPOSE - code, order, rows.shape[0]),  # the product of rows.T with itself
        *(1.0, stored.ctypes.data, step, 1.0, total.ctypes.data, order),
    )


def symmetric_product(upper: Floats, vector: Floats) -> Floats:
    """The product of a symmetric matrix, given by its upper triangle, with a vector of the same dtype."""
    order = len(upper)
    result = np.empty(order, upper.dtype)
    symv = _library().scipy_cblas_ssymv64_ if upper.dtype == np.float32 else _library().scipy_cblas_dsymv64_
    symv(
        *(ROW_MAJOR, UPPER, order, 1.0, upper.ctypes.data, order, vector.ctypes.data, 1),
        *(0.0, result.ctypes.data, 1),
    )
    return result


def gram(tall: Array) -> Array:
    """``A.T @ A`` as a whole."""
    total: Array = np.zeros((tall.shape[1], tall.shape[1]))
    add_gram(total, tall)
    return np.triu(total) + np.triu(total, 1).T


def product(left: Array, right: Array) -> Array:
    """``left @ right``, of two matrices of which each, or its transpose, has adjacent elements along the last axis."""
    result = np.empty((left.shape[0], right.shape[1]))
    (left_code, a, left_step), (right_code, b, right_step) = _stored(left), _stored(right)
    rows, cols, inner = *result.shape, left.shape[1]
    _library().scipy_cblas_dgemm64_(
        *(ROW_MAJOR, left_code, right_code, rows, cols, inner, 1.0, a.ctypes.data, left_step),
        *(b.ctypes.data, right_step, 0.0, result.ctypes.data, cols),
    )
    return result


def eigenvalues(matrix: Array) -> Array:
    """The eigenvalues of a symmetric matrix, given by its upper triangle, ascending; the matrix is overwritten.

    Raises:
        LinAlgError: If LAPACK's iteration does not converge.
    """
    order = len(matrix)
    values = np.empty(order)
    a_row_major_upper_triangle = b"L"  # is LAPACK's lower one, since Fortran counts by columns
    fixed = (b"N", a_row_major_upper_triangle, _pointer(order), _data(matrix), _pointer(order), _data(values))

    def call(work: Array, size: int, whole: NDArray[np.int64]) -> int:
        info = _Integer()
        _library().scipy_dsyevd_64_(
            *fixed, _data(work), _pointer(size), _data(whole), _pointer(1), ctypes.byref(info), *_lengths(2)
        )
        return info.value

    _with_work_space(call, 1)
    return values


def largest_of_tridiagonal(diagonal: Array, beside: Array) -> tuple[float, float]:
    """The largest eigenvalue of a symmetric tridiagonal matrix, and the last element of its unit eigenvector.

    Args:
        diagonal: Shape ``(k,)``.
        beside: The elements beside it, shape ``(k - 1,)``.
    """
    order = len(diagonal)
    d, e = np.array(diagonal), np.append(beside, 0.0)
    value, vector, work = np.empty(order), np.empty(order), np.empty(5 * order)
    whole, failed, info, zero, found = (
        np.empty(5 * order, np.int64),
        np.empty(1, np.int64),
        _Integer(),
        np.zeros(1),
        _Integer(),
    )
    _library().scipy_dstevx_64_(
        *(b"V", b"I", _pointer(order), _data(d), _data(e), _data(zero), _data(zero), _pointer(order), _pointer(order)),
        *(_data(zero), ctypes.byref(found), _data(value), _data(vector), _pointer(order), _data(work), _data(whole)),
        *(_data(failed), ctypes.byref(info), *_lengths(2)),
    )
    if info.value != 0:
        raise np.linalg.LinAlgError("LAPACK's iteration did not converge")
    return float(value[0]), float(vector[-1])


def singular_values(matrix: NDArray[np.floating]) -> Array:
    """The singular values of a matrix, shape ``(rows, cols)``, descending, by LAPACK's divide and conquer.

    Raises:
        LinAlgError: If LAPACK's iteration does not converge.
    """
    copy = np.array(matrix, dtype=np.float64, order="F")
    rows, cols = copy.shape
    values, nothing = np.empty(min(rows, cols)), np.empty(1)
    fixed = (b"N", _pointer(rows), _pointer(cols), _data(copy), _pointer(rows), _data(values))

    def call(work: Array, size: int, whole: NDArray[np.int64]) -> int:
        info, vectors = _Integer(), (_data(nothing), _pointer(1), _data(nothing), _pointer(1))
        _library().scipy_dgesdd_64_(
            *fixed, *vectors, _data(work), _pointer(size), _data(whole), ctypes.byref(info), *_lengths(1)
        )
        return info.value

    _with_work_space(call, 8 * min(rows, cols))
    return values


def _with_work_space(call: Callable[[Array, int, NDArray[np.int64]], int], whole_numbers: int) -> None:
    """Ask LAPACK how much work space it wants, and run it with that much."""
    size, whole = np.empty(1), np.empty(whole_numbers, dtype=np.int64)
    call(size, -1, whole)
    work = np.empty(int(size[0]))
    if call(work, work.size, whole) != 0:
        raise np.linalg.LinAlgError("LAPACK's iteration did not converge")


def _stored(matrix: Floats) -> tuple[int, Floats, int]:
    """How a matrix is stored: CBLAS's code, the matrix, and the step from one row (transposed: column) to the next."""
    for code, axis in ((NO_TRANSPOSE, 1), (TRANSPOSE, 0)):
        if matrix.strides[axis] == matrix.itemsize:
            return code, matrix, max(matrix.strides[1 - axis] // matrix.itemsize, 1)
    return NO_TRANSPOSE, (copy := np.ascontiguousarray(matrix)), copy.shape[1]


def _pointer(number: int) -> object:
    return ctypes.byref(_Integer(number))


def _data(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return _Address(array.ctypes.data)


def _lengths(count: int) -> list[ctypes.c_size_t]:
    """The lengths of the letters among the arguments, which Fortran expects at the end."""
    return [ctypes.c_size_t(1)] * count
