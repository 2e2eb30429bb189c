"""Chains of stochastic gradient Langevin dynamics around the current weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Losses = Sequence[tuple[float, Callable[[], Tensor]]]
"""The losses of batches at the current weights, each with its share of the whole; shares sum to 1."""


@dataclass(frozen=True)
class Step:
    """The constants of a step ``w ← w − (ε/2)(nβ ∇L + γ(w − w*)) + N(0, ε)``."""

    size: float  # ε
    localization: float  # γ
    n_beta: float  # nβ


class Chain:
    """A chain that starts at the current weights, and moves the parameters in place.

    Args:
        losses: The losses of the batches. At each step one batch is taken, all of them in random order before any again.
        params: The parameters, leaves that require gradients.
        seed: The seed of the noise and of the order.
    """

    def __init__(self, losses: Losses, params: Sequence[Tensor], seed: int) -> None:
        self._losses, self._params = losses, list(params)
        self._center = [parameter.detach().clone() for parameter in params]
        self._noise = {device: _generator(device, seed) for device in {p.device for p in params}}
        self._order = torch.Generator().manual_seed(seed)
        self._left: list[int] = []

    def run(self, num_steps: int, step: Step) -> list[tuple[int, Tensor]]:
        """Make steps; return, of each, the batch and its loss before the step, times the batch's share and their number."""
        seen = []
        for _ in range(num_steps):
            if not self._left:
                self._left = torch.randperm(len(self._losses), generator=self._order).tolist()
            place = self._left.pop()
            share, batch_loss = self._losses[place]
            weight = share * len(self._losses)  # batches are drawn alike, whatever their size
            with torch.enable_grad():
                loss = weight * batch_loss()
                slopes = torch.autograd.grad(loss, self._params, allow_unused=True)
            seen.append((place, loss.detach()))
            self._move(slopes, step)
        return seen

    @torch.no_grad()
    def _move(self, slopes: Sequence[Tensor | None], step: Step) -> None:
        for parameter, center, slope in zip(self._params, self._center, slopes, strict=True):
            pull = (parameter - center).mul_(step.localization)
            if slope is not None:
                pull.add_(slope, alpha=step.n_beta)
            kind = {"dtype": parameter.dtype, "device": parameter.device}
            noise = torch.randn(parameter.shape, generator=self._noise[parameter.device], **kind)  # type: ignore[call-overload]
            parameter.add_(pull, alpha=-step.size / 2).add_(noise, alpha=step.size**0.5)

    @torch.no_grad()
    def go_back(self) -> None:
        """Put the parameters back, to the bit."""
        for parameter, center in zip(self._params, self._center, strict=True):
            parameter.copy_(center)


def _generator(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
