"""`Tops`: the directions of largest curvature, which are followed from one step of training to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lightning_ww.curvature.krylov import lanczos
from lightning_ww.curvature.quadrature import UNCONVERGED

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_ww.curvature.operators import CurvatureOperator

WARM_STEPS, COLD_STEPS = 6, 12
"""The numbers of Lanczos steps that follow the sharpness, from the last directions and if these have changed."""

KEPT_DIRECTIONS, RANDOM_PART = 2, 0.3
"""The number of directions of largest curvature that are kept, and the length of the random part beside them."""


class Tops:
    """The directions of largest curvature at the last step at which they were followed."""

    def __init__(self) -> None:
        self._vectors: Tensor | None = None  # (KEPT_DIRECTIONS, P)

    def follow(self, operator: CurvatureOperator, seed: int, number: int) -> tuple[float, float]:
        """The sharpness and its residual, from the last directions: by six products, or more if they changed.

        The start has a random part, and two directions are kept, since another eigenvalue may overtake the largest one:
        from the largest one's own direction alone, no number of products would see it.

        Args:
            operator: The curvature.
            seed: The seed of random parts.
            number: The step of training.
        """
        if self._vectors is not None and self._vectors.shape[1] != operator.shape[0]:
            self._vectors = None  # parameters were added or removed
        sharpness = residual = float("nan")
        for num_steps in (COLD_STEPS,) if self._vectors is None else (WARM_STEPS, COLD_STEPS):
            # another random part each time, so that a direction that overtakes is seen sooner or later
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            random = torch.randn(operator.shape[0], generator=generator)
            start = random.to(dtype=operator.dtype, device=operator.device) / float(random.norm())
            if self._vectors is not None:
                start = self._vectors.sum(0) / self._vectors.shape[0] ** 0.5 + RANDOM_PART * start
            krylov = lanczos(lambda vector: operator @ vector, start, num_steps)
            values, vectors, residuals = krylov.tops(KEPT_DIRECTIONS)
            self._vectors = vectors
            sharpness, residual = float(values[0]), float(residuals[0])
            rivals = values[1:] + residuals[1:]
            is_ahead = not rivals.numel() or float(rivals.max()) <= sharpness + residual
            if residual <= UNCONVERGED * abs(sharpness) and is_ahead:
                break
        return sharpness, residual
