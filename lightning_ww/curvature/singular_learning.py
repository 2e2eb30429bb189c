"""The local learning coefficient of singular learning theory, by Langevin chains around the current weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from lightning_ww import _checks
from lightning_ww._torch import random_streams_kept
from lightning_ww.curvature.coefficient import LearningCoefficient, judged, moved
from lightning_ww.curvature.density import SpectralDensity, spectral_density
from lightning_ww.curvature.langevin import Anchor, Chain, Losses, Step
from lightning_ww.curvature.operators import Batches, HessianOperator, NotFiniteError, shares
from lightning_ww.curvature.parameters import select_parameters

STABLE = 0.2
"""ε(nβ λ_max + γ) by default: steps of this size raise the steepest direction's share by 5 %, all others by less."""

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
"""A smaller step is tried where the current one is above the allowed one by this factor."""

SEEDS = 1_000_003
"""The distance of the seeds of two calls."""


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
    batch_size_fn: Callable[[Any], int] | None = None,
    seed: int = 0,
) -> LearningCoefficient:
    """Estimate the local learning coefficient of a model at its weights.

    Chains run on a copy of the model in evaluation mode. Each takes ``num_burnin + num_draws`` gradients, each on one batch.
    The gradients of all batches at the weights are kept: memory for as many models as there are batches. Random streams are
    left as they were.

    Args:
        model: The model, close to a minimum of its loss.
        loss: ``(model, batch) -> 0-d tensor``, the mean loss of a batch.
        data: The batches, best of the whole training data; they are kept in memory. The baseline loss is that of all of them,
            weighted by their sizes.
        num_samples: The number n of training samples.
        num_chains: The number of chains. Default: ``4``.
        num_draws: The steps of each chain that count. Default: ``500``.
        num_burnin: The steps before them, which do not. Default: ``500``.
        step_size: ε. Default: ``None``, 0.2/(nβ λ_max + γ), with the sharpness λ_max at the weights and along a first chain.
        localization: γ, the strength of the pull toward the weights. Default: ``None``, 1, or 2nβ|λ_min| if that is more.
        n_beta: nβ, n times the inverse temperature. Default: ``None``, n/ln n.
        params: Names or shell patterns of the parameters that are moved. Default: ``None``, all that require gradients.
        batch_size_fn: A function ``batch -> int`` that tells the number of samples of a batch. Default: ``None``, the length
            of its tensors; if these disagree, batches have equal weights.
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
    if not hasattr(data, "__iter__"):
        raise _checks.unfit_object(call, "data", "batches, such as a `DataLoader`", f"a `{type(data).__name__}`")
    _checks.having(call, "batch_size_fn", batch_size_fn, "__call__", "a function `batch -> int`")
    how = Sampling(num_samples, num_chains, num_draws, num_burnin, step_size, localization, n_beta, seed, call)
    with random_streams_kept(model):  # a loader and a loss may draw
        batches = list(data)
        if not batches:
            raise _checks.unfit_object(call, "data", "at least one batch", "none")
        twin = copy.deepcopy(model).eval()
        chosen = list(select_parameters(twin, params, call=call).values())

        def of(batch: Any) -> Tensor:
            value = loss(twin, batch)
            if not isinstance(value, Tensor) or value.numel() != 1:
                raise _checks.unfit_object(call, "loss", "a function that returns a 0-d tensor", f"{value!r}"[:80])
            return value.reshape(())

        sizes = [_size(batch) if batch_size_fn is None else batch_size_fn(batch) for batch in batches]
        weights = [1.0 if None in sizes else float(size or 0) for size in sizes]
        return sampled([(w, partial(of, batch)) for w, batch in zip(weights, batches, strict=True)], chosen, how)


def _size(batch: Any) -> int | None:
    """The number of samples of a batch, if its tensors agree on it."""
    sizes = {leaf.shape[0] for leaf in _pytree.tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim}
    return sizes.pop() if len(sizes) == 1 else None


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
                if name != "localization" and value == 0:
                    raise _checks.unfit(call, name, value, "a number above 0")


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
    anchor = Anchor.of(losses, params)
    if not all(map(math.isfinite, anchor.losses)):
        raise NotFiniteError("the loss at these weights is not finite.")
    n_beta = how.num_samples / math.log(how.num_samples) if how.n_beta is None else how.n_beta
    few = losses[:CURVATURE_BATCHES]
    density = spectral_density(HessianOperator(few, params), num_steps=CURVATURE_STEPS, seed=how.seed)
    lowest = density.lambda_min if density.lambda_min < -density.tol else 0.0  # else rounding
    localization = how.localization
    if localization is None:
        localization = max(LEAST_LOCALIZATION, -2 * n_beta * lowest)
    step, trouble = Step(how.step_size or 0.0, localization, n_beta), ""
    if how.step_size is None:
        step, trouble = _stable(few, losses, params, anchor, step, density.sharpness, how)
    draws = _draws(losses, params, anchor, step, how)
    for _ in range(ROUNDS if how.step_size is None else 0):
        if bool(torch.isfinite(draws).all()):
            break
        step = replace(step, size=step.size / 3)
        draws = _draws(losses, params, anchor, step, how)
    found = LearningCoefficient(
        value=float(draws.mean()),
        chains=tuple(draws.mean(1).tolist()),
        drift=float(moved(draws).mean()),
        is_valid=True,
        reason="",
        loss=sum(anchor.losses) / len(anchor.losses),
        step_size=step.size,
        localization=localization,
        n_beta=n_beta,
        num_samples=how.num_samples,
        quadratic=_quadratic(density, step),
        reached=_reached(density, step, how),
        lambda_min=lowest,
        draws=draws,
    )
    return judged(found, trouble)


def _draws(losses: Losses, params: Sequence[Tensor], anchor: Anchor, step: Step, how: Sampling) -> Tensor:
    """nβ times the loss of a batch above the same at the weights, shape ``(chains, draws)``; no more after a lost chain."""
    rows: list[Tensor] = []
    for number in range(how.num_chains):
        chain = Chain(losses, params, anchor, how.seed * SEEDS + 1 + number)
        try:
            chain.run(how.num_burnin, step)
            rows.append(step.n_beta * chain.run(how.num_draws, step))
        finally:
            chain.go_back()
        if not bool(torch.isfinite(rows[-1]).all()):
            break
    return torch.stack(rows)


def _stable(
    few: Losses,
    losses: Losses,
    params: Sequence[Tensor],
    anchor: Anchor,
    step: Step,
    sharpness: float,
    how: Sampling,
) -> tuple[Step, str]:
    """A step that is stable along a chain, and a sentence if none was found.

    At a degenerate minimum the curvature is zero; a chain soon comes to where it is not. So a first chain is run, and a
    smaller step is taken as long as the chain finds more curvature than the step allows.
    """

    def allowed(most: float) -> Step:
        return replace(step, size=STABLE / (step.n_beta * max(most, 0.0) + step.localization or 1.0))

    trial = allowed(sharpness)
    for _ in range(ROUNDS):
        chain, highest = Chain(losses, params, anchor, how.seed * SEEDS), sharpness
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


def _quadratic(density: SpectralDensity, step: Step) -> float | None:
    """½ Σ λ/(λ + γ/nβ) over the positive eigenvalues, ``None`` where its error is large, or γ or nβ is 0."""
    if step.n_beta <= 0 or step.localization <= 0:
        return None
    n = 3  # any: the estimate takes γ ln n/n
    gamma = step.localization / step.n_beta * n / math.log(n)
    shown = density.estimate("effective_dimension", n, gamma).shown
    return None if shown is None else shown / 2


def _reached(density: SpectralDensity, step: Step, how: Sampling) -> float:
    """The part of the quadratic's coefficient that chains had time to reach.

    Along a direction of curvature λ a chain has ``1 − (1 − εA/2)^(2t)`` of its last variance after t steps, A = nβλ + γ.
    """
    least = density.tol if step.localization == 0 else 0.0  # without γ, rounding would count in full
    positive = torch.where(density.nodes > least, density.nodes, 0.0)
    pull = step.n_beta * positive + step.localization
    terms = density.weights * torch.where(pull > 0, step.n_beta * positive / pull, 0.0)
    if not float(terms.sum()) > 0:
        return 1.0  # no curvature to tell by
    times = torch.arange(how.num_burnin, how.num_burnin + how.num_draws, dtype=torch.float64)
    still = (1 - step.size * pull / 2).clamp(-1, 1).abs()[:, None] ** (2 * times)
    return float((terms * (1 - still.mean(1))).sum() / terms.sum())
