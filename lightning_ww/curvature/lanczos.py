"""Krylov basis and tridiagonal matrix of a symmetric operator, by Lanczos with full reorthogonalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from linear_operator.utils.lanczos import lanczos_tridiag

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

BREAKDOWN = 64
"""An off-diagonal below so many roundings of the operator's own scale means that the Krylov space is invariant."""


@dataclass(frozen=True)
class Krylov:
    """``A Q = Q T + off_diagonal_last · q_next e_kᵀ`` with orthonormal ``Q`` and tridiagonal ``T``, of k steps."""

    diagonal: Tensor  # (k,), float64, on the CPU
    off_diagonal: Tensor  # (k - 1,), float64, on the CPU
    remainder: float  # norm of what the last step left over; 0 if the space is invariant
    basis: Tensor  # (k, P), rows orthonormal, dtype and device of the start vector

    @property
    def tridiagonal(self) -> Tensor:
        """T, shape ``(k, k)``."""
        return torch.diag(self.diagonal) + torch.diag(self.off_diagonal, 1) + torch.diag(self.off_diagonal, -1)

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ritz values ascending, first components of T's eigenvectors, and residual norms; each ``(k,)``, float64.

        The residual ``‖A y - θ y‖`` of a Ritz pair is the remainder times the last component of T's eigenvector, and
        the products' rounding besides; an eigenvalue of A lies within it of θ.
        """
        values, vectors = torch.linalg.eigh(self.tridiagonal)
        rounding = torch.finfo(self.basis.dtype).eps * values.abs().max()
        return values, vectors[0], self.remainder * vectors[-1].abs() + rounding


def lanczos(matvec: Callable[[Tensor], Tensor], start: Tensor, num_steps: int) -> Krylov:
    """Build the Krylov basis of a symmetric operator from a start vector.

    Each new vector is made orthogonal to all before it, twice, by two matrix products a pass: once is enough for most
    operators, twice for all. Norms and diagonals are summed in float64. On an accelerator nothing is copied to the host
    before the end. The steps end early where the Krylov space is invariant, measured against the operator's own scale.

    Args:
        matvec: The product with a vector of shape ``(P,)``.
        start: Not zero, shape ``(P,)``.
        num_steps: At most so many products, and at most P.

    Returns:
        Basis and tridiagonal matrix.

    Raises:
        ValueError: If the start vector is zero or not finite, a product is not finite, or ``num_steps`` is below 1.

    References:
        Parlett (1998), The symmetric eigenvalue problem, SIAM, chapter 13.
    """
    if num_steps < 1:
        raise ValueError(f"`lanczos(num_steps={num_steps!r})`: expected a positive integer.")
    norm = _norm(start)
    if not (torch.isfinite(norm) and norm > 0):
        raise ValueError(f"`lanczos(start=...)`: expected a finite vector that is not zero, but its norm is {norm:g}.")
    steps = min(num_steps, start.numel())
    basis = torch.zeros(steps, start.numel(), dtype=start.dtype, device=start.device)
    diagonal, off_diagonal = [], []
    rounding = BREAKDOWN * torch.finfo(start.dtype).eps
    scale = torch.zeros((), dtype=torch.float64, device=start.device)
    alive = torch.ones((), dtype=torch.bool, device=start.device)
    vector = start / norm.to(start.dtype)
    for k in range(steps):
        basis[k] = vector
        image = matvec(vector).detach()
        image_norm = _norm(image)
        scale = torch.maximum(scale, image_norm)
        diagonal.append((vector * image).sum(dtype=torch.float64))
        known = basis[: k + 1]
        for _ in range(2):
            image = image - (known @ image) @ known
        remainder = _norm(image)
        alive = alive & (remainder > rounding * scale)
        off_diagonal.append(torch.where(alive, remainder, 0.0))
        # past a breakdown the vectors are zero, and so are all numbers: no look at the host is needed to go on
        vector = torch.where(alive, image / torch.where(alive, remainder, 1.0).to(image.dtype), 0.0)
        if start.device.type == "cpu" and not alive:
            break
    between, along = torch.stack(off_diagonal).cpu(), torch.stack(diagonal).cpu()
    if not bool(along.isfinite().all() and between.isfinite().all()):
        raise ValueError("`lanczos(matvec=...)` gave a product that is not finite.")
    ended = torch.nonzero(between == 0)
    size = int(ended[0]) + 1 if ended.numel() else len(diagonal)
    return Krylov(along[:size], between[: size - 1], float(between[size - 1]), basis[:size])


def gpytorch_lanczos(operator: Any, start: Tensor, num_steps: int) -> Krylov:
    """The same by GPyTorch's own routine, one product more.

    It stops where an off-diagonal is below 1e-6, whatever the operator's scale, and fails on a zero operator.
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
    return Krylov(
        square.diagonal()[:size],
        square.diagonal(1)[: size - 1],
        float(square[size - 1, size]) if has_next else 0.0,
        basis.mT[:size],
    )


def _norm(vector: Tensor) -> Tensor:
    """The Euclidean norm, summed in float64: float32 sums lose four digits at ten million elements."""
    return torch.as_tensor(torch.linalg.vector_norm(vector, dtype=torch.float64))
