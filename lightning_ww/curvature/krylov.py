"""The Krylov basis and tridiagonal matrix of a symmetric operator, by Lanczos with full reorthogonalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from linear_operator.utils.lanczos import lanczos_tridiag

from lightning_ww import _checks
from lightning_ww.curvature.operators import NotFiniteError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

BREAKDOWN = 64
"""An off-diagonal below this many roundings of the operator's scale means that the Krylov space is invariant."""


GPYTORCH_TOLERANCE = 1e-6
"""GPyTorch's iteration stops at an off-diagonal below this, whatever the operator's scale."""

CHUNK = 2**16
"""The number of elements of each vector that a CPU processes at a time, so that two sums read them only once."""

SAFE = (1e-25, 1e35)
"""The range in which a sum of products of float32 has lost nothing by underflow, and its terms have not overflowed."""

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

    def pairs(self, places: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The Ritz values at these places, from the smallest, 0, on; their vectors, in rows; and their residuals."""
        values, vectors = torch.linalg.eigh(self.tridiagonal)
        rows = vectors[:, list(places)].T.to(self.basis) @ self.basis
        rows = rows / rows.norm(dim=1, keepdim=True)
        return values[list(places)], rows, self._residuals(values, vectors)[list(places)]

    def _residuals(self, values: Tensor, vectors: Tensor) -> Tensor:
        return self.remainder * vectors[-1].abs() + self.rounding * values.abs().max()


def lanczos(matvec: Callable[[Tensor], Tensor], start: Tensor, num_steps: int, storage: Storage = "full") -> Krylov:
    """Build the Krylov basis of a symmetric operator from a start vector.

    Each new vector is made orthogonal to the last two by the three-term recurrence, and then to all earlier vectors in a
    pass of two matrix products. If that takes away more than rounding, so that the norm falls below 1/√2 of what it was, a
    second pass follows; on an accelerator always, since nothing is copied to the host before the end. The steps end early if
    the Krylov space is invariant, relative to the operator's scale.

    Args:
        matvec: The product with a vector of shape ``(P,)``. The result may be overwritten, here and by the next product.
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
    diagonal: list[Tensor] = []
    off_diagonal: list[Tensor] = []
    rounding = BREAKDOWN * torch.finfo(start.dtype).eps
    scale = torch.zeros((), dtype=torch.float64, device=start.device)
    alive = torch.ones((), dtype=torch.bool, device=start.device)
    image = start / norm.to(start.dtype)
    for _ in range(steps):
        vector = basis.add(image)
        image = matvec(vector).detach()
        diagonal.append(along := _dot(vector, image))
        before = off_diagonal[-1] if off_diagonal else torch.zeros_like(along)
        remainder = basis.orthogonalize(image, along, before)
        norm = (along.square() + before.square() + remainder.square()).sqrt()  # of the product
        scale = torch.maximum(scale, norm)
        alive = alive & (remainder > rounding * scale)
        off_diagonal.append(torch.where(alive, remainder, 0.0))
        # after a breakdown all vectors and numbers are zero, so the loop need not wait for a copy to the host
        image.mul_(torch.where(alive, 1 / remainder, 0.0).to(image.dtype))
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

    def add(self, vector: Tensor) -> Tensor:
        """Add a vector; return it as it is kept in full precision."""
        if len(self.rows):
            self.rows[self._added].copy_(vector if self._scale == 1 else self._scale * vector)
        if len(self._last):
            self._last[self._added % 2].copy_(vector)
        self._added += 1
        return self._full(self._added - 1)

    def _full(self, number: int) -> Tensor:
        """One of the last two vectors."""
        return self._last[number % 2] if len(self._last) else self.rows[number]

    def orthogonalize(self, vector: Tensor, along: Tensor, before: Tensor) -> Tensor:
        """Take the components along the basis from a vector, in place; return the norm of what is left.

        Args:
            vector: The product with the last vector of the basis.
            along: Its component along that vector.
            before: Its component along the vector before that, if there is one.
        """
        near = [(self._full(self._added - 1), along)]
        if self._added > 1:
            near.append((self._full(self._added - 2), before))
        norm, left = self._pass(vector, near)
        if vector.device.type != "cpu" or left < norm / 2**0.5:
            left = self._pass(vector)[1]
        return left

    def _pass(self, vector: Tensor, near: Sequence[tuple[Tensor, Tensor]] = ()) -> tuple[Tensor, Tensor]:
        """Take components from a vector in place: the known ones, then those along all vectors.

        Args:
            vector: The vector.
            near: Vectors, and the known components along them.

        Returns:
            The norms before and after the latter are taken away.
        """
        older = self.rows[: max(0, self._added - len(self._last))]
        groups = [group for group in (older, self._last) if len(group)]
        components: list[list[Tensor]] = [[] for _ in groups]
        before, after = [], []
        for part, *others in _parts(vector, *(other for other, _ in near), *groups):
            for other, (_, amount) in zip(others, near, strict=False):
                part.sub_(other * amount.to(other.dtype))
            before.append(torch.dot(part, part))
            for sums, block in zip(components, others[len(near) :], strict=True):
                sums.append(block.to(part.dtype) @ part)
        totals = [torch.stack(sums).sum(0) for sums in components]
        if len(older):
            totals[0] = totals[0] / self._scale**2
        for part, *blocks in _parts(vector, *groups):
            for block, total in zip(blocks, totals, strict=True):
                part.addmv_(block.to(part.dtype).T, total, alpha=-1)
            after.append(torch.dot(part, part))
        return _total(before, vector).sqrt(), _total(after, vector).sqrt()


def _parts(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Split tensors along the last dimension; on an accelerator into one part, since each part costs kernel launches."""
    size = CHUNK if tensors[0].device.type == "cpu" else tensors[0].shape[-1]
    return list(zip(*(torch.split(tensor, size, dim=-1) for tensor in tensors), strict=True))


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """The inner product, in float64."""
    return _total([torch.dot(a, b) for a, b in _parts(x, y)], x, y)


def _total(dots: Sequence[Tensor], x: Tensor, y: Tensor | None = None) -> Tensor:
    """The inner product of x with y, or with itself, in float64, from the inner products of their parts.

    A sum of ten million elements in float32 loses four digits. On a CPU, each part's own sum keeps as many as the elements
    have, unless it leaves the range of float32. On an accelerator there is one part, which is summed again.
    """
    total = torch.stack(list(dots)).sum(dtype=torch.float64)
    is_safe = x.device.type == "cpu" and SAFE[0] < abs(total) < SAFE[1]
    if x.dtype != torch.float64 and not is_safe:
        total = torch.stack([torch.dot(a.double(), b.double()) for a, b in _parts(x, x if y is None else y)]).sum()
    return total


def _norm(vector: Tensor) -> Tensor:
    """The Euclidean norm, in float64."""
    return _dot(vector, vector).sqrt()
