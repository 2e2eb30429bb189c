"""The scatter of gradients and Hessians over batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lightning_ww._errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lightning_ww.curvature.operators import HessianOperator


@dataclass(frozen=True)
class BatchNoise:
    """The scatter of the batches' gradients g_b and Hessians H_b, for B batches of one size."""

    gradient_norm: float  # ‖ḡ‖ of the mean gradient
    gradient_variance: float  # Σ‖g_b − ḡ‖²/(B − 1), the trace of the covariance of batches' gradients
    covariance_eigenvalues: tuple[float, ...]  # of that covariance, at most B − 1, the largest first
    hessian_variance: float | None  # Σ‖H_b − H̄‖²_F/(B − 1), by a random vector; None: not asked for
    num_batches: int
    batch_size: float | None  # of each; None: unknown, or not the same

    @property
    def sample_variance(self) -> float | None:
        """The trace of the covariance of single samples' gradients, a batch's times its size."""
        return None if self.batch_size is None else self.batch_size * self.gradient_variance

    @property
    def noise_scale(self) -> float | None:
        """The number of samples in a batch whose noise is as large as the gradient, tr(Σ)/‖G‖², ‖G‖² without bias.

        ``None`` where the gradient cannot be told from noise, or the size of batches is not known.

        References:
            McCandlish et al. (2018), An empirical model of large-batch training, arXiv:1812.06162.
        """
        signal = self.gradient_norm**2 - self.gradient_variance / self.num_batches
        return None if self.sample_variance is None or signal <= 0 else self.sample_variance / signal

    def tic(self, trace: float) -> float | None:
        """The ratio of traces of Takeuchi's information criterion, tr(C)/tr(H), for a Hessian with this trace.

        References:
            Thomas et al. (2020), On the interplay between noise and curvature, AISTATS.
        """
        return None if self.sample_variance is None or trace <= 0 else self.sample_variance / trace


def batch_noise(
    operator: HessianOperator, batch_size: float | None = None, *, hessian: bool = True, seed: int = 0
) -> BatchNoise:
    """Measure the scatter of gradients over the batches of an operator, which has them, and of Hessians by one product.

    Args:
        operator: The operator, over two batches or more.
        batch_size: The number of samples of each. Default: ``None``, unknown.
        hessian: Whether to measure the scatter of Hessians. Default: ``True``.
        seed: The seed of the random vector for it. Default: ``0``.

    Raises:
        ArgumentError: If there are fewer than two batches. It is a `ValueError`.

    Example:
        >>> from lightning_ww.curvature import HessianOperator
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> found = batch_noise(HessianOperator([(1, lambda: (w * 2).sum()), (1, lambda: (w * 4).sum())], [w]))
        >>> found.gradient_norm, found.gradient_variance
        (3.0, 2.0)
    """
    gradients = [slope.detach() for _, slope in operator.slopes]
    count = len(gradients)
    if count < 2:
        raise ArgumentError(f"`batch_noise(operator=...)`: expected two batches or more, got {count}.")
    mean, variance, eigenvalues = _scatter(gradients)
    scatter = None
    if hessian:
        vector = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(seed))
        vector = vector.to(dtype=operator.dtype, device=operator.device)
        scatter = _scatter(operator.each(vector))[1]  # E‖Av‖² = ‖A‖²_F
    return BatchNoise(mean, variance, eigenvalues, scatter, count, batch_size)


def _scatter(vectors: Sequence[Tensor]) -> tuple[float, float, tuple[float, ...]]:
    """The norm of the mean, the trace of the covariance, and its eigenvalues, from the vectors' products alone."""
    count = len(vectors)
    gram = torch.zeros(count, count, dtype=torch.float64)
    for i, first in enumerate(vectors):
        for j, second in enumerate(vectors[: i + 1]):
            gram[i, j] = gram[j, i] = float(torch.dot(first, second))
    centered = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
    values = torch.linalg.eigvalsh(centered / (count - 1)).flip(0)[: count - 1].clamp(min=0)
    return max(float(gram.mean()), 0.0) ** 0.5, max(float(centered.trace()), 0.0) / (count - 1), tuple(values.tolist())
