"""Chains of stochastic gradient Langevin dynamics around the current weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_ww.curvature.operators import real

Losses = Sequence[tuple[float, Callable[[], Tensor]]]
"""The losses of batches at the current weights, each with its share of the whole; shares sum to 1."""

LOOKED_AT = 50
"""The number of steps after which a chain is asked whether it is lost."""


@dataclass(frozen=True)
class Step:
    """The constants of a step ``w ← w − (ε/2)(nβ ∇L + γ(w − w*)) + N(0, ε)``."""

    size: float  # ε
    localization: float  # γ
    n_beta: float  # nβ


@dataclass(frozen=True)
class Anchor:
    """The weights w* around which chains run, and the losses and gradients of all batches there."""

    center: list[Tensor]
    losses: list[float]  # of each batch, times its share and their number
    slopes: list[list[Tensor | None]]  # of the same
    mean: list[Tensor]  # the gradient of the whole

    @classmethod
    def of(cls, losses: Losses, params: Sequence[Tensor]) -> Anchor:
        """Evaluate the losses at the current values of the parameters."""
        values: list[float] = []
        slopes: list[list[Tensor | None]] = []
        mean = [torch.zeros_like(parameter) for parameter in params]
        for share, batch_loss in losses:
            with torch.enable_grad():
                loss = share * len(losses) * batch_loss()
                own = torch.autograd.grad(loss, list(params), allow_unused=True)
            values.append(loss.detach().item())
            slopes.append(list(own))
            for total, slope in zip(mean, own, strict=True):
                if slope is not None:
                    total.add_(slope, alpha=1 / len(losses))
        return cls([parameter.detach().clone() for parameter in params], values, slopes, mean)


class Chain:
    """A chain that starts at the anchor, and moves the parameters in place.

    The gradient is that of one batch, minus its own at the anchor, plus that of all batches there: without bias, and nearly
    without the noise of batches, which would widen the chain (control variates).

    Args:
        losses: The losses of the batches. At each step one batch is taken, all of them in random order before any again.
        params: The parameters, leaves that require gradients.
        anchor: The losses and gradients at the weights.
        seed: The seed of the noise and of the order.

    References:
        Baker et al. (2019), Control variates for stochastic gradient MCMC, Statistics and Computing.
    """

    def __init__(self, losses: Losses, params: Sequence[Tensor], anchor: Anchor, seed: int) -> None:
        self._losses, self._params, self._anchor = losses, list(params), anchor
        devices = sorted({parameter.device for parameter in params}, key=str)
        self._noise = {device: _generator(device, seed + 7919 * i) for i, device in enumerate(devices)}
        self._order = _generator(torch.device("cpu"), seed)
        self._left: list[int] = []

    def run(self, num_steps: int, step: Step) -> Tensor:
        """Make steps; return, of each, the loss of its batch before it above the same at the anchor, NaN once it is lost."""
        seen: list[Tensor] = []
        for _ in range(num_steps):
            if not self._left:
                self._left = torch.randperm(len(self._losses), generator=self._order).tolist()
            place = self._left.pop()
            share, batch_loss = self._losses[place]
            weight = share * len(self._losses)  # batches are drawn alike, whatever their size
            with torch.enable_grad():
                loss = weight * batch_loss()
                slopes = torch.autograd.grad(loss, self._params, allow_unused=True)
            seen.append(loss.detach().to(torch.float32 if loss.device.type == "mps" else torch.float64))
            seen[-1] = seen[-1] - self._anchor.losses[place]
            self._move(slopes, place, step)
            if len(seen) % LOOKED_AT == 0 and not bool(torch.isfinite(seen[-1])):
                break
        lost = [torch.tensor(float("nan"), dtype=torch.float64)] * (num_steps - len(seen))
        return torch.stack([value.cpu().to(torch.float64) for value in seen] + lost) if num_steps else torch.empty(0)

    @torch.no_grad()
    def _move(self, slopes: Sequence[Tensor | None], place: int, step: Step) -> None:
        at = self._anchor
        rows = zip(self._params, at.center, slopes, at.slopes[place], at.mean, strict=True)
        for parameter, center, slope, own, mean in rows:
            pull = (parameter - center).mul_(step.localization).add_(mean, alpha=step.n_beta)
            if slope is not None:
                pull.add_(slope, alpha=step.n_beta)
            if own is not None:
                pull.add_(own, alpha=-step.n_beta)
            noise = torch.empty_like(real(parameter)).normal_(generator=self._noise[parameter.device])
            noise = torch.view_as_complex(noise) if parameter.is_complex() else noise  # of pairs of reals
            parameter.add_(pull, alpha=-step.size / 2).add_(noise, alpha=step.size**0.5)

    @torch.no_grad()
    def go_back(self) -> None:
        """Put the parameters back, to the bit."""
        for parameter, center in zip(self._params, self._anchor.center, strict=True):
            parameter.copy_(center)


def _generator(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed % 2**63)
