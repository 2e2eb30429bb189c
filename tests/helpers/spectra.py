"""Symmetric matrices of known spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np
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


def known_spectra() -> dict[str, Tensor]:
    """Twenty-two spectra, such as losses have, on which estimates of sums over a spectrum are tried."""
    random = np.random.default_rng(7)

    def joined(*parts: Any) -> np.ndarray:
        return np.concatenate([np.atleast_1d(np.asarray(part, dtype=float)) for part in parts])

    half = np.sort(np.linalg.eigvalsh((lambda g: (g + g.T) / 40)(random.standard_normal((400, 400)))))
    wishart = np.linalg.svd(random.standard_normal((600, 300)), compute_uv=False) ** 2 / 600
    heavy = 0.02 * random.pareto(2, 980)
    spectra = {
        "network-like": network_like().numpy(),
        "semicircle": half,
        "semicircle and outliers": joined(half, np.geomspace(2, 40, 10)),
        "Marchenko-Pastur": wishart,
        "Marchenko-Pastur, half of it zero": joined(wishart, np.zeros(300)),
        "Marchenko-Pastur and outliers": joined(wishart, np.geomspace(5, 100, 9)),
        "heavy tail": heavy,
        "heavy tail and outliers": joined(heavy, np.geomspace(3, 300, 20)),
        "heavy tail, nine tenths zero": joined(heavy, np.zeros(8820)),
        "very heavy tail": 1e-3 * random.pareto(1, 1500),
        "exponential decay": np.geomspace(1e-6, 10, 500),
        "slow decay": 10 / np.arange(1, 801),
        "fast decay": 10 / np.arange(1, 801) ** 2,
        "uniform": np.linspace(0.01, 1, 500),
        "indefinite": joined(random.normal(0, 0.05, 900), np.geomspace(0.5, 20, 10), -np.geomspace(0.2, 1, 5)),
        "at initialization": random.normal(0, 1, 700),
        "an L2 floor": joined(np.full(900, 0.01), 0.05 * random.pareto(1.5, 100)),
        "dead units": joined(np.zeros(700), 0.1 * random.exponential(size=290), np.geomspace(2, 30, 10)),
        "each eigenvalue three times": np.geomspace(0.01, 100, 60).repeat(3),
        "each eigenvalue ten times": np.geomspace(0.01, 100, 60).repeat(10),
        "two eigenvalues": joined(np.full(250, 1.0), np.full(150, 4.0)),
        "ten classes and a small bulk": joined(1e-4 * random.exponential(size=2000), np.linspace(3, 12, 10)),
    }
    return {name: torch.from_numpy(np.sort(values)) for name, values in spectra.items()}


class Diagonal:
    """A diagonal operator."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.dtype, self.device = values, values.dtype, values.device
        self.shape = (values.numel(), values.numel())

    def __matmul__(self, vector: Tensor) -> Tensor:
        return self.values * vector
