"""The Deep Curvature Suite's examples: known spectra, one start vector or two, smoothing, diagonals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from claims import SEEDS, Claim, plot, save, spread
from scipy.stats import norm, semicircular
from torch import Tensor

from lightning_ww.curvature import spectral_density

SIZE, STEPS, WIDTH = 1000, 30, 3.0


def wigner(n: int, seed: int) -> Tensor:
    """A symmetric Gaussian matrix with a semicircle of radius 2."""
    elements = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.as_tensor((elements + elements.T) / (2 * n) ** 0.5)


def marchenko_pastur(n: int, seed: int, ratio: float = 0.5) -> Tensor:
    """A sample covariance of n variables and n/ratio samples."""
    samples = int(n / ratio)
    elements = torch.randn(n, samples, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return elements @ elements.T / samples


def network_like(seed: int) -> Tensor:
    """470 eigenvalues in 0 … 15, 20 in 0 … 60, 10 in -10 … 0, in random directions."""
    random = np.random.default_rng(seed)
    values = np.concatenate([random.uniform(0, 15, 470), random.uniform(0, 60, 20), random.uniform(-10, 0, 10)])
    basis = np.linalg.qr(random.standard_normal((500, 500)))[0]
    return torch.tensor(basis * values @ basis.T)


def rank_one(n: int, seed: int) -> Tensor:
    """The projection on a random direction."""
    vector = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.outer(vector, vector) / vector.square().sum()


def moments(make: Callable[[int, int], Tensor], probes: int) -> list[float]:
    """The mean relative error of the first four moments, a seed each."""
    errors = []
    for seed in range(SEEDS):
        matrix = make(SIZE, seed)
        density = spectral_density(matrix, num_steps=STEPS, num_probes=probes, seed=seed, quadrature="plain")
        nodes, weights = (np.asarray(part) for part in (density.nodes, density.weights))
        exact = np.linalg.eigvalsh(matrix.numpy())
        scale = np.abs(exact).max()
        found = [abs((weights * nodes**k).sum() - (exact**k).mean()) / scale**k for k in range(1, 5)]
        errors.append(float(np.mean(found)))
    return errors


def reproduce() -> list[Claim]:
    """All of its examples."""
    semicircle, cloud = moments(wigner, 1), moments(marchenko_pastur, 1)
    two = moments(wigner, 2), moments(marchenko_pastur, 2)
    ends = []
    for seed in range(SEEDS):
        matrix = network_like(seed)
        exact, density = torch.linalg.eigvalsh(matrix), spectral_density(matrix, num_steps=STEPS, seed=seed)
        diagonal = matrix.diagonal()
        nodes, weights = np.asarray(density.nodes), np.asarray(density.weights)
        places = np.linspace(nodes.min() - 8 * WIDTH, nodes.max() + 8 * WIDTH, 20_000)
        smoothed = (weights * norm.pdf(places[:, None], nodes, WIDTH)).sum(1)
        smooth, plain = float((smoothed * places**2).sum() * (places[1] - places[0])), float((weights * nodes**2).sum())
        bias = WIDTH**2 / float((exact**2).mean())
        ends.append(
            (
                abs(density.sharpness - float(exact[-1])),
                abs(density.lambda_min - float(exact[0])),
                float(diagonal.max() - diagonal.min()) / float(exact[-1] - exact[0]),
                smooth / plain - 1,
                bias,
            )
        )
    ends_of = np.array(ends)
    scatter = []
    for make in (marchenko_pastur, rank_one):
        matrix = make(SIZE, 0)
        vectors = torch.randn(SIZE, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        forms = (vectors * (matrix @ vectors)).sum(0) / SIZE
        scatter.append(float(forms.std() / forms.mean()))
    figure, (left, right) = plot.subplots(1, 2, figsize=(9, 3.4))
    density = spectral_density(wigner(SIZE, 0), num_steps=STEPS)
    left.plot(
        np.sort(np.asarray(density.nodes)),
        np.cumsum(np.asarray(density.weights)[np.argsort(np.asarray(density.nodes))]),
        "o-",
    )
    grid = np.linspace(-2, 2, 200)
    left.plot(grid, semicircular.cdf(grid / 2), "k--")
    left.set_title("Wigner's law: cumulative weights")
    matrix = network_like(0)
    right.hist(matrix.diagonal().numpy(), bins=30, density=True, alpha=0.6, label="diagonal")
    right.hist(torch.linalg.eigvalsh(matrix).numpy(), bins=60, density=True, alpha=0.6, label="eigenvalues")
    right.legend()
    right.set_title("470/20/10: diagonal and spectrum")
    save(figure, "deep_curvature")
    return [
        Claim(
            "One start vector and 30 steps give the moments of Wigner's and Marchenko–Pastur's laws (n = 1,000).",
            "errors of a few percent",
            f"{spread(semicircle, 4)} and {spread(cloud, 4)} of λ_max to the power (first four moments)",
            "holds" if max(*semicircle, *cloud) < 0.05 else "holds in part",
        ),
        Claim(
            "A second start vector changes little.",
            "like errors",
            f"{spread(two[0], 4)} and {spread(two[1], 4)}",
            "holds" if max(*two[0], *two[1]) < 0.05 else "holds in part",
        ),
        Claim(
            "470/20/10: 30 steps find both ends of a spectrum like a network's.",
            "both ends to 3 digits",
            f"errors of {ends_of[:, 0].max():.1e} at the top (of 59) and {ends_of[:, 1].max():.1e} at the bottom (of -10)",
            "holds" if ends_of[:, :2].max() < 0.06 else "holds in part",
        ),
        Claim(
            "The diagonal is no stand-in for the spectrum.",
            "a far narrower range",
            f"its range is {100 * ends_of[:, 2].mean():.0f} % of the spectrum's",
            "holds" if ends_of[:, 2].max() < 0.5 else "does not hold",
        ),
        Claim(
            "Smoothing with a Gaussian of width s biases moments: the second by s².",
            f"too large by {100 * ends_of[:, 4].mean():.1f} % for s = 3, a twentieth of the range",
            f"{100 * ends_of[:, 3].mean():.1f} %",
            "holds" if np.allclose(ends_of[:, 3], ends_of[:, 4], rtol=0.25) else "does not hold",
        ),
        Claim(
            "One vector is enough.",
            "a relative scatter of about √(2/n) = 0.03 of the trace from one vector",
            f"{scatter[0]:.3f} for Marchenko–Pastur, {scatter[1]:.2f} for a matrix of rank one, whatever n is",
            "holds in part",
        ),
    ]
