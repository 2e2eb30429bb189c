"""`LearningCoefficient`: an estimate of the local learning coefficient, and whether it is valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 0.25
"""The largest drift and the largest standard error of a valid estimate, relative to it."""

REACHED = 0.8
"""The least part of a quadratic loss's coefficient that chains of this length and step have time to reach."""


@dataclass(frozen=True)
class LearningCoefficient:
    """An estimate of the local learning coefficient λ, ``nβ(E[L(w)] − L(w*))`` over chains around the weights w*.

    Half the number of parameters for a regular minimum, less for a singular one. It means something only near a minimum.
    """

    value: float  # the mean over all draws of all chains
    chains: tuple[float, ...]  # the mean of each chain
    drift: float  # the mean of the second half of the draws, minus that of the first
    is_valid: bool
    reason: str  # why it is not valid; "" if it is
    loss: float  # at the weights, over all data
    step_size: float  # ε
    localization: float  # γ
    n_beta: float  # nβ
    num_samples: int
    quadratic: float | None  # ½ Σ λ/(λ + γ/nβ) over the positive eigenvalues λ; None where its error is large, or γ = 0
    reached: float  # the part of it that chains had time to reach, 0 … 1
    lambda_min: float  # the smallest eigenvalue of the curvature at the weights, 0 if it is rounding
    draws: Tensor = field(repr=False, compare=False, default_factory=lambda: torch.empty(0, 0))  # (chains, draws)

    @property
    def stderr(self) -> float | None:
        """The standard error over chains; ``None`` of a single one."""
        if len(self.chains) < 2:
            return None
        spread = float(torch.tensor(self.chains, dtype=torch.float64).std())
        return spread / float(len(self.chains) ** 0.5)

    def plot(self) -> Figure:
        """Draw each chain's running mean, and its draws.

        Returns:
            A matplotlib figure that pyplot does not manage.
        """
        from lightning_ww.curvature.plots.chains import chains_figure

        return chains_figure(self)


def joined(parts: Sequence[LearningCoefficient]) -> LearningCoefficient:
    """Join the estimates of several processes, each from its own chains and batches; constants are those of the first."""
    first, draws = parts[0], torch.cat([part.draws for part in parts])
    quadratics = [part.quadratic for part in parts if part.quadratic is not None]
    whole = replace(
        first,
        value=float(draws.mean()),
        chains=tuple(draws.mean(1).tolist()),
        drift=float(moved(draws).mean()),
        loss=sum(part.loss for part in parts) / len(parts),
        quadratic=sum(quadratics) / len(quadratics) if len(quadratics) == len(parts) else None,
        reached=min(part.reached for part in parts),
        draws=draws,
    )
    return judged(whole, next((part.reason for part in parts if not part.is_valid), ""))


def moved(draws: Tensor) -> Tensor:
    """The mean of the second half of each chain's draws, minus that of the first."""
    half = draws.shape[1] // 2
    none = torch.zeros(len(draws), dtype=torch.float64)
    return draws[:, half:].mean(1) - draws[:, :half].mean(1) if half else none


def judged(found: LearningCoefficient, trouble: str) -> LearningCoefficient:
    """The estimate, with the reason if it is not valid."""
    change = moved(found.draws)
    error = float(change.std()) / len(change) ** 0.5 if len(change) > 1 else 0.0
    reason, most = trouble, LARGEST * abs(found.value)
    if not bool(torch.isfinite(found.draws).all()):
        reason = "a chain was lost: lower `step_size`"
    elif found.localization < -found.n_beta * found.lambda_min:
        least = -found.n_beta * found.lambda_min
        reason = f"the loss curves down by more than chains are held: raise `localization` above {least:.3g}"
    elif found.value < 0:
        reason = "the chains have found a lower loss: the weights are not at a minimum of these data"
    elif found.reached < REACHED:
        share = f"{100 * found.reached:.0f} %"
        reason = (
            f"the chains had time to reach {share} of a quadratic's coefficient: raise `num_burnin`, or `localization`"
        )
    elif abs(found.drift) > max(most, 2 * error):
        reason = f"the chains have not settled (drift {found.drift:.3g}): raise `num_burnin`"
    elif found.stderr is not None and found.stderr > most:
        reason = f"the chains disagree (standard error {found.stderr:.3g}): raise `num_draws`"
    return replace(found, is_valid=not reason, reason=reason)
