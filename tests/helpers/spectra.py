"""Symmetric matrices of known spectrum."""

from __future__ import annotations

import torch
from torch import Tensor


def symmetric(values: Tensor, seed: int = 0) -> Tensor:
    """A matrix with these eigenvalues in a random basis."""
    generator = torch.Generator().manual_seed(seed)
    n = values.numel()
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=values.dtype))
    return torch.as_tensor(q @ torch.diag(values) @ q.T)


def network_like(n: int = 500) -> Tensor:
    """470 eigenvalues in [0, 15], 20 in [0, 60], 10 in [-10, 0]: the Deep Curvature Suite's synthetic spectrum."""
    generator = torch.Generator().manual_seed(1)
    parts = [(470, 15.0), (20, 60.0), (10, -10.0)]
    return torch.cat([scale * torch.rand(k, generator=generator, dtype=torch.float64) for k, scale in parts])
