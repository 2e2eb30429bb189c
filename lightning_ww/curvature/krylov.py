"""The Krylov basis and tridiagonal matrix of a symmetric operator, by Lanczos with full reorthogonalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from linear_operator.utils.lanczos import lanczos_tridiag

from lightning_ww import _checks
from lightning_ww.curvature.operators import NotFiniteError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

BREAKDOWN = 64
"""An off-diagonal below this many roundings of the operator's scale means that the Krylov space is invariant."""


GPYTORCH_TOLERANCE = 1e-6
"""GPyTorch's iteration stops at an off-diagonal below this, whatever the operator's scale."""

CHUNK = 2**16
"""The number of elements of each vector that a CPU processes at a time, so that two sums read them only once."""

Storage = Literal["full", "half", "none"]


@dataclass(frozen=True)
class Krylov:
    """The result of k steps, ``A Q = Q T + off_diagonal_last · q_next e_kᵀ``, ``Q`` orthonormal and ``T`` tridiagonal."""

    diagonal: Tensor  # (k,), float64, on the CPU
    off_diagonal: Tensor  # (k - 1,), float64, on the CPU
    remainder: float  # norm of the vector that the last step left; 0 if the space is invariant
    basis: Tensor  # (k, P), rows orthonormal, on the start vector's device; times √P if "half", empty if "none"
    rounding: float  # the relative rounding of the start vector's dtype; with storage "half", at least float32's

    @property
    def tridiagonal(self) -> Tensor:
        """T, shape ``(k, k)``."""
        return torch.diag(self.diagonal) + torch.diag(self.off_diagonal, 1) + torch.diag(self.off_diagonal, -1)

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """The ascending Ritz values, the first components of T's eigenvectors, and residuals; each ``(k,)``, float64.

        The residual ``‖A y - θ y‖`` of a Ritz pair is the remainder times the last component of T's eigenvector, plus
        the rounding of the products. An eigenvalue of A lies within this distance of θ.
        """
        values, vectors = torch.linalg.eigh(self.tridiagonal)
        return values, vectors[0], self._residuals(values, vectors)

    def top(self, *, by_size: bool = False) -> tuple[float, Tensor, float]:
        """The largest Ritz value, or the largest by absolute value, its vector, shape ``(P,)``, and its residual."""
        values, vectors = torch.linalg.eigh(self.tridiagonal)
        k = int((values.abs() if by_size else values).argmax())
        residual = float(self._residuals(values, vectors)[k])
        return float(values[k]), vectors[:, k].to(self.basis) @ self.basis, residual

    def tops(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The largest Ritz values, at most ``count``, the largest first; their vectors, in rows; and their residuals."""
        values, vectors = torch.linalg.eigh(self.tridiagonal)
        residuals = self._residuals(values, vectors)
        rows = vectors.flip(1)[:, :count].T.to(self.basis) @ self.basis
        return values.flip(0)[:count], rows, residuals.flip(0)[:count]

    def _residuals(self, values: Tensor, vectors: Tensor) -> Tensor:
        return self.remainder * vectors[-1].abs() + self.rounding * values.abs().max()


def lanczos(matvec: Callable[[Tensor], Tensor], start: Tensor, num_steps: int, storage: Storage = "full") -> Krylov:
    """Build the Krylov basis of a symmetric operator from a start vector.

    Each new vector is made orthogonal to all earlier vectors in two passes, each of two matrix products. One pass is
    enough for most operators, two for all. Norms and diagonals are summed in float64. On an accelerator nothing is copied
    to the host before the end. The steps end early if the Krylov space is invariant, relative to the operator's scale.

    Args:
        matvec: The product with a vector of shape ``(P,)``.
        start: The start vector, not zero, shape ``(P,)``.
        num_steps: The number of steps, each with one product; at most P are made.
        storage: The storage of the basis: ``"full"`` in the start vector's precision (default), ``"half"`` in 16 bits,
            or ``"none"``. Without a basis, each vector is made orthogonal to the last two only, and converged eigenvalues
            appear again as copies: both ends of the spectrum are right, but the number of outliers is not.

    Returns:
        The basis and the tridiagonal matrix.

    Raises:
        ArgumentError: If the start vector is zero or not finite, or ``num_steps`` is below 1. It is a `ValueError`.
        NotFiniteError: If a product is not finite. It is a `ValueError`.

    References:
        Parlett (1998), The symmetric eigenvalue problem, SIAM, chapter 13.
    """
    if num_steps < 1:
        raise _checks.unfit("lanczos", "num_steps", num_steps, "an integer of at least 1")
    norm = _norm(start)
    if not (torch.isfinite(norm) and norm > 0):
        raise _checks.unfit_object("lanczos", "start", "a finite vector that is not zero", f"one of norm {norm:g}")
    steps = min(num_steps, start.numel())
    basis = _Basis(steps, start, storage)
    diagonal, off_diagonal = [], []
    rounding = BREAKDOWN * torch.finfo(start.dtype).eps
    scale = torch.zeros((), dtype=torch.float64, device=start.device)
    alive = torch.ones((), dtype=torch.bool, device=start.device)
    vector = start / norm.to(start.dtype)
    for _ in range(steps):
        basis.add(vector)
        image = matvec(vector).detach()
        scale = torch.maximum(scale, _norm(image))
        diagonal.append(_dot(vector, image))
        image = basis.without(image)
        remainder = _norm(image)
        alive = alive & (remainder > rounding * scale)
        off_diagonal.append(torch.where(alive, remainder, 0.0))
        # after a breakdown all vectors and numbers are zero, so the loop need not wait for a copy to the host
        vector = image.mul_(torch.where(alive, 1 / remainder, 0.0).to(image.dtype))
        if start.device.type == "cpu" and not alive:
            break
    between, along = torch.stack(off_diagonal).cpu(), torch.stack(diagonal).cpu()
    if not bool(along.isfinite().all() and between.isfinite().all()):
        raise NotFiniteError("`lanczos(matvec=...)` gave a product that is not finite.")
    ended = torch.nonzero(between == 0)
    size = int(ended[0]) + 1 if ended.numel() else len(diagonal)
    # a basis in 16 bits gives float32's precision at best, however precise the products are
    rounding = max(torch.finfo(start.dtype).eps, torch.finfo(torch.float32).eps if storage == "half" else 0.0)
    return Krylov(along[:size], between[: size - 1], float(between[size - 1]), basis.rows[:size], rounding)


def gpytorch_lanczos(operator: Any, start: Tensor, num_steps: int) -> Krylov:
    """Build the Krylov basis by GPyTorch's own routine, which takes one product more than `lanczos`.

    It stops at an off-diagonal below 1e-6, whatever the operator's scale, and fails on a zero operator.
    """
    norm = float(_norm(start))
    steps = min(num_steps + 1, start.numel())
    if steps < 2:  # its loop cannot make one step
        return lanczos(lambda vector: operator @ vector, start, num_steps)
    basis, tridiagonal = lanczos_tridiag(
        lambda vector: operator @ vector,
        steps,
        start.dtype,
        start.device,
        torch.Size((start.numel(), start.numel())),
        init_vecs=start.unsqueeze(-1) / norm,
    )
    size = min(num_steps, tridiagonal.shape[-1])
    has_next = tridiagonal.shape[-1] > size
    square = tridiagonal.double().cpu()
    if not bool(square.isfinite().all()):
        raise NotFiniteError('`spectral_density(lanczos="gpytorch")` has failed on this operator: use `lanczos="own"`.')
    return Krylov(
        square.diagonal()[:size],
        square.diagonal(1)[: size - 1],
        float(square[size - 1, size]) if has_next else GPYTORCH_TOLERANCE,
        basis.mT[:size],
        torch.finfo(start.dtype).eps,
    )


class _Basis:
    """The vectors to which each new vector is made orthogonal; the last two are always in full precision."""

    def __init__(self, steps: int, start: Tensor, storage: Storage) -> None:
        size = start.numel()
        # a unit vector's elements are about 1/√P, which is among the subnormal numbers of float16 for large P
        self._scale = size**0.5 if storage == "half" else 1.0
        dtype = torch.float16 if storage == "half" else start.dtype
        self.rows = torch.empty(0 if storage == "none" else steps, size, dtype=dtype, device=start.device)
        self._last = torch.zeros(0 if storage == "full" else 2, size, dtype=start.dtype, device=start.device)
        self._added = 0

    def add(self, vector: Tensor) -> None:
        """Add a vector."""
        if len(self.rows):
            self.rows[self._added] = self._scale * vector
        if len(self._last):
            self._last[self._added % 2] = vector
        self._added += 1

    def without(self, vector: Tensor) -> Tensor:
        """The vector without its components along the basis, which are removed twice because of rounding."""
        if len(self._last):
            return self._once(self._once(vector))
        known = self.rows[: self._added]
        along = known @ vector
        less = torch.empty_like(vector)
        left = torch.zeros_like(along)
        for block, part, out in _parts(known, vector, less):
            torch.addmv(part, block.T, along, alpha=-1, out=out)
            left += block @ out
        return less.addmv_(known.T, left, alpha=-1)

    def _once(self, vector: Tensor) -> Tensor:
        less = torch.addmv(vector, self._last.T, self._last @ vector, alpha=-1)
        older = self.rows[: max(0, self._added - 2)]
        if not len(older):
            return less
        parts = _parts(older, less)
        along = torch.stack([block.to(part.dtype) @ part for block, part in parts]).sum(0) / self._scale**2
        for block, part in parts:
            part.addmv_(block.to(part.dtype).T, along, alpha=-1)
        return less


def _parts(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Split tensors along the last dimension; on an accelerator into one part, since each part costs kernel launches."""
    size = CHUNK if tensors[0].device.type == "cpu" else tensors[0].shape[-1]
    return list(zip(*(torch.split(tensor, size, dim=-1) for tensor in tensors), strict=True))


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """The inner product, summed in float64: float32 sums lose four digits at ten million elements."""
    return torch.stack([torch.dot(a.double(), b.double()) for a, b in _parts(x, y)]).sum()


def _norm(vector: Tensor) -> Tensor:
    """The Euclidean norm, summed in float64."""
    return _dot(vector, vector).sqrt()
