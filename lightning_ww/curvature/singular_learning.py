"""The local learning coefficient of singular learning theory, by Langevin chains around the current weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_ww import _checks
from lightning_ww.curvature.density import spectral_density
from lightning_ww.curvature.langevin import Chain, Losses, Step
from lightning_ww.curvature.operators import Batches, HessianOperator, NotFiniteError, shares
from lightning_ww.curvature.parameters import select_parameters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STABLE = 0.2
"""ε(nβ λ_max + γ) by default: steps of this size bias the steepest direction's share by 5 %, all others by less."""

LEAST_LOCALIZATION = 1.0
"""γ by default, unless the curvature is negative (Lau et al.)."""

CURVATURE_STEPS = 20
"""The number of Lanczos steps by which the curvature is measured."""

CURVATURE_BATCHES = 4
"""The most batches over which it is measured."""

ROUNDS = 12
"""The most times that a smaller step is tried."""

LOOKS = 4
"""The number of times that a first chain's curvature is measured."""

TOLERANCE = 1.5
"""The multiple of the largest step that the curvature along a chain allows at which a smaller one is tried."""

DRIFT = 0.25
"""The largest drift of a valid estimate, relative to the estimate, unless it is within twice its own error."""

SEEDS = 1_000_003
"""The distance of the seeds of two calls."""


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
    quadratic: float  # ½ Σ nβλ/(nβλ + γ) over the positive eigenvalues λ: what a quadratic loss would have
    lambda_min: float  # the smallest eigenvalue of the curvature at the weights
    trouble: str = field(default="", repr=False)  # with finding a step
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


def learning_coefficient(
    model: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    data: Iterable[Any],
    *,
    num_samples: int,
    num_chains: int = 4,
    num_draws: int = 500,
    num_burnin: int = 500,
    step_size: float | None = None,
    localization: float | None = None,
    n_beta: float | None = None,
    params: str | Sequence[str] | None = None,
    seed: int = 0,
) -> LearningCoefficient:
    """Estimate the local learning coefficient of a model at its weights.

    Chains run on a copy of the model in evaluation mode. Each takes ``num_burnin + num_draws`` gradients, each on one batch.

    Args:
        model: The model, close to a minimum of its loss.
        loss: ``(model, batch) -> 0-d tensor``, the mean loss of a batch.
        data: The batches; they are kept in memory. The baseline loss is that of all of them.
        num_samples: The number n of training samples.
        num_chains: The number of chains. Default: ``4``.
        num_draws: The steps of each chain that count. Default: ``500``.
        num_burnin: The steps before them, which do not. Default: ``500``.
        step_size: ε. Default: ``None``, 0.2/(nβ λ_max + γ), with the sharpness λ_max at the weights and along a first chain.
        localization: γ, the strength of the pull toward the weights. Default: ``None``, 1, or 2nβ|λ_min| if that is more.
        n_beta: nβ, n times the inverse temperature. Default: ``None``, n/ln n.
        params: Names or shell patterns of the parameters that are moved. Default: ``None``, all that require gradients.
        seed: The seed of the chains. Default: ``0``.

    Returns:
        The estimate, with the reason where it is not valid.

    Raises:
        ArgumentError: If an argument is out of its domain, or there is no batch. It is a `ValueError`.
        NotFiniteError: If the loss at the weights is not finite. It is a `ValueError`.

    References:
        Lau et al. (2025), The local learning coefficient: a singularity-aware complexity measure, AISTATS, arXiv:2308.12108.
        Watanabe (2013), A widely applicable Bayesian information criterion, JMLR.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        >>> y = model(x).detach()
        >>> found = learning_coefficient(model, lambda net, batch: (net(x) - y).square().mean(), [None], num_samples=1000)
        >>> abs(found.value - 1.5) < 0.3  # three parameters, all of them regular
        True
    """
    call = "learning_coefficient"
    if not isinstance(model, nn.Module):
        raise _checks.unfit_object(call, "model", "a module", f"a `{type(model).__name__}`")
    _checks.having(call, "loss", loss, "__call__", "a function `(model, batch) -> loss`")
    batches = list(data)
    if not batches:
        raise _checks.unfit_object(call, "data", "at least one batch", "none")
    twin = copy.deepcopy(model).eval()
    chosen = list(select_parameters(twin, params, call=call).values())

    def of(batch: Any) -> Tensor:
        return loss(twin, batch)

    losses = [(1.0, lambda batch=batch: of(batch)) for batch in batches]
    how = Sampling(num_samples, num_chains, num_draws, num_burnin, step_size, localization, n_beta, seed, call)
    return sampled(losses, chosen, how)


@dataclass(frozen=True)
class Sampling:
    """The arguments of `learning_coefficient` that say how chains run."""

    num_samples: int
    num_chains: int
    num_draws: int
    num_burnin: int
    step_size: float | None = None
    localization: float | None = None
    n_beta: float | None = None
    seed: int = 0
    call: str = "learning_coefficient"  # the function or class that error messages name

    def __post_init__(self) -> None:
        call = self.call
        _checks.count(call, "num_samples", self.num_samples, least=2)
        _checks.count(call, "num_chains", self.num_chains, least=1)
        _checks.count(call, "num_draws", self.num_draws, least=1)
        _checks.count(call, "num_burnin", self.num_burnin, least=0)
        _checks.count(call, "seed", self.seed, least=0)
        for name in ("step_size", "localization", "n_beta"):
            if (value := getattr(self, name)) is not None:
                _checks.number(call, name, value)


def sampled(loss: Batches, params: Sequence[Tensor], how: Sampling) -> LearningCoefficient:
    """Estimate the learning coefficient of losses of batches at the current values of parameters.

    The parameters are moved in place, and put back to the bit.

    Args:
        loss: A function ``() -> 0-d tensor`` of the current parameters, or several, each with the size of its batch.
        params: The parameters, leaves that require gradients.
        how: How chains run.

    Raises:
        NotFiniteError: If the loss at the parameters is not finite. It is a `ValueError`.
    """
    losses = shares(how.call, loss)
    with torch.enable_grad():  # a loss may need gradients of its own
        baselines = [share * len(losses) * own().detach().item() for share, own in losses]
    if not all(map(math.isfinite, baselines)):
        raise NotFiniteError("the loss at these weights is not finite.")
    n_beta = how.num_samples / math.log(how.num_samples) if how.n_beta is None else how.n_beta
    few = losses[:CURVATURE_BATCHES]
    density = spectral_density(HessianOperator(few, params), num_steps=CURVATURE_STEPS, seed=how.seed)
    localization, trouble = how.localization, ""
    if localization is None:
        localization = max(LEAST_LOCALIZATION, 2 * n_beta * max(0.0, -density.lambda_min))
    step = Step(how.step_size or 0.0, localization, n_beta)
    if how.step_size is None:
        step, trouble = _stable(few, losses, params, step, density.sharpness, how)
    draws = _draws(losses, params, step, how, baselines)
    for _ in range(ROUNDS if how.step_size is None else 0):
        if bool(torch.isfinite(draws).all()):
            break
        step = replace(step, size=step.size / 3)
        draws = _draws(losses, params, step, how, baselines)
    positive = density.nodes.clamp(min=0)
    held = n_beta * positive + localization
    terms = torch.where(held > 0, n_beta * positive / held, 0.0)
    quadratic = density.dim * float((density.weights * terms).sum()) / 2
    loss_there = sum(baselines) / len(baselines)
    return _judged(draws, loss_there, step, how.num_samples, density.lambda_min, quadratic, trouble)


def joined(parts: Sequence[LearningCoefficient]) -> LearningCoefficient:
    """Join the estimates of several processes, each from its own chains and batches; constants are those of the first."""
    first = parts[0]
    draws = torch.cat([part.draws for part in parts])
    step = Step(first.step_size, first.localization, first.n_beta)
    loss = sum(part.loss for part in parts) / len(parts)
    quadratic = sum(part.quadratic for part in parts) / len(parts)
    trouble = next((part.trouble for part in parts if part.trouble), "")
    lowest = min(part.lambda_min for part in parts)
    return _judged(draws, loss, step, first.num_samples, lowest, quadratic, trouble)


def _draws(losses: Losses, params: Sequence[Tensor], step: Step, how: Sampling, baselines: Sequence[float]) -> Tensor:
    """nβ times the loss above the baseline of the same batch, shape ``(chains, draws)``."""
    rows = []
    for number in range(how.num_chains):
        chain = Chain(losses, params, how.seed * SEEDS + 1 + number)
        try:
            chain.run(how.num_burnin, step)
            seen = chain.run(how.num_draws, step)
        finally:
            chain.go_back()
        values = torch.stack([value for _, value in seen]).to(torch.float64).cpu()
        below = torch.tensor([baselines[place] for place, _ in seen], dtype=torch.float64)
        rows.append(step.n_beta * (values - below))
    return torch.stack(rows)


def _stable(
    few: Losses, losses: Losses, params: Sequence[Tensor], step: Step, sharpness: float, how: Sampling
) -> tuple[Step, str]:
    """A step that is stable along a chain, and a sentence if none was found.

    At a degenerate minimum the curvature is zero; a chain soon comes to where it is not. So a first chain is run, and a
    smaller step is taken as long as the chain finds more curvature than the step allows.
    """

    def allowed(most: float) -> Step:
        return replace(step, size=STABLE / (step.n_beta * max(most, 0.0) + step.localization or 1.0))

    trial = allowed(sharpness)
    for _ in range(ROUNDS):
        chain, highest = Chain(losses, params, how.seed * SEEDS), sharpness
        try:
            for _ in range(LOOKS):
                chain.run(max(1, how.num_burnin // LOOKS), trial)
                matrix = HessianOperator(few, params)
                found = spectral_density(matrix, num_steps=CURVATURE_STEPS, seed=how.seed)
                highest = max(highest, found.sharpness)
                if trial.size > TOLERANCE * allowed(highest).size:
                    break
            else:
                return trial, ""
            trial = allowed(highest)
        except NotFiniteError:
            trial = replace(trial, size=trial.size / 10)
        finally:
            chain.go_back()
    return trial, f"no stable step was found in {ROUNDS} trials"


def _judged(
    draws: Tensor,
    loss: float,
    step: Step,
    num_samples: int,
    lambda_min: float,
    quadratic: float,
    trouble: str,
) -> LearningCoefficient:
    """The estimate, and whether it is valid."""
    means = draws.mean(1)
    value, half = float(means.mean()), draws.shape[1] // 2
    moved = draws[:, half:].mean(1) - draws[:, :half].mean(1) if half else torch.zeros(len(draws), dtype=torch.float64)
    drift = float(moved.mean())
    error = float(moved.std()) / len(moved) ** 0.5 if len(moved) > 1 else 0.0
    reason = trouble
    if not bool(torch.isfinite(draws).all()):
        reason = "a chain was lost: lower `step_size`"
    elif step.localization < -step.n_beta * lambda_min:
        most = -step.n_beta * lambda_min
        reason = f"the loss curves down by more than chains are held: raise `localization` above {most:.3g}"
    elif value < 0:
        reason = "the chains have found a lower loss: the weights are not at a minimum"
    elif abs(drift) > max(DRIFT * abs(value), 2 * error):
        reason = f"the chains have not settled (drift {drift:.3g}): raise `num_burnin`"
    return LearningCoefficient(
        value=value,
        chains=tuple(means.tolist()),
        drift=drift,
        is_valid=not reason,
        reason=reason,
        loss=loss,
        step_size=step.size,
        localization=step.localization,
        n_beta=step.n_beta,
        num_samples=num_samples,
        quadratic=quadratic,
        lambda_min=lambda_min,
        trouble=trouble,
        draws=draws,
    )
