"""The edge of stability: the curvature in units of what an optimizer's learning rates allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_ww.curvature.density import spectral_density
from lightning_ww.curvature.operators import CurvatureOperator, ScaledOperator, ShiftedOperator, real

GRADIENT_DESCENT = 2.0
"""On a quadratic of curvature λ, gradient descent diverges if lr·λ exceeds this."""


COUPLED = (
    *(torch.optim.SGD, torch.optim.ASGD, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta),
    *(torch.optim.Adam, torch.optim.Adamax, torch.optim.NAdam, torch.optim.RAdam),
)
"""The optimizers that add weight decay to the gradient, unless they are told to decouple it; of others it is not known."""


@dataclass(frozen=True)
class EdgeOfStability:
    """The sharpness in units of what the learning rates allow; 1 is the edge of stability."""

    lr_sharpness: float  # for plain gradient descent with these learning rates
    stability_edge: float | None  # 2/lr - wd, the sharpness at that edge; None with several learning rates, or lr = 0
    optimizer_sharpness: float | None  # for the optimizer in use, with momentum and preconditioner; None if unknown

    @classmethod
    def of(
        cls,
        operator: CurvatureOperator,
        sharpness: float,
        params: Sequence[Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        num_steps: int = 15,
        seed: int = 0,
        preconditioned: bool = True,
        lambda_min: float | None = None,
    ) -> EdgeOfStability | None:
        """Compare the curvature with the learning rates.

        The edge is that of a quadratic: for plain gradient descent lr·λ_max = 2; with momentum β it is 2 + 2β, with
        Nesterov's (2 + 2β)/(1 + 2β); for Adam and AdamW lr·λ_max(P^-½ H P^-½) = (2 + 2β₁)/(1 - β₁), where
        P = (1 - β₁ᵗ)(√v̂ + ε); RMSprop is Adam without β₁. With several learning rates, each parameter is scaled by its
        own: the ratio is λ_max of D^½HD^½, where D is the diagonal matrix of lr over its edge. Weight decay that is part of
        the gradient (of the optimizers in `COUPLED`) adds to the curvature, H + wd; an optimizer that maximizes descends
        on -H.

        Args:
            operator: The Hessian H or the Gauss–Newton matrix G, over ``params``.
            sharpness: The operator's largest eigenvalue, which is enough if all parameters have equal scaling.
            params: The parameters that the optimizers have, in the operator's order.
            optimizers: The optimizers whose learning rates count; a parameter of none of them does not move.
            num_steps: The number of Lanczos steps for a scaled operator. Default: ``15``.
            seed: The seed of their start vector. Default: ``0``.
            preconditioned: Whether to run Lanczos for a preconditioner, too. Default: ``True``.
            lambda_min: The operator's smallest eigenvalue, if it is known, for optimizers that maximize. Default: ``None``.

        Returns:
            The ratios, or ``None`` if no parameter is in any of the optimizers, or an optimizer has no learning rate.

        References:
            Cohen et al. (2021), Gradient descent on neural networks typically occurs at the edge of stability,
            arXiv:2103.00065. Cohen et al. (2022), Adaptive gradient methods at the edge of stability, arXiv:2207.14484.
        """
        owners = _owners(params, optimizers)
        if not any(owners) or not all(_has_rate(owner) for owner in owners):
            return None
        rates = [0.0 if owner is None else float(owner[1]["lr"]) for owner in owners]
        signs = {bool(owner[1].get("maximize")) for owner in owners if owner is not None}
        if len(signs) > 1:  # some descend and some ascend: the product of both is no curvature
            return None
        sign = -1.0 if True in signs else 1.0
        decays = [0.0 if owner is None else _coupled_decay(*owner) for owner in owners]

        def largest(scales: Sequence[float | Tensor]) -> float:
            """λ_max of D^½ (±A + wd) D^½."""
            alike = all(isinstance(scale, float) and scale == scales[0] for scale in scales) and len(set(decays)) == 1
            extreme = sharpness if sign > 0 else None if lambda_min is None else -lambda_min
            if alike and extreme is not None:
                return float(scales[0]) * (extreme + decays[0])
            diagonal = _flat(scales, params, operator)
            matrix = ScaledOperator(ShiftedOperator(operator, sign, _flat(decays, params, operator)), diagonal)
            return spectral_density(matrix, num_steps=num_steps, seed=seed).sharpness

        lr_sharpness = largest([rate / GRADIENT_DESCENT for rate in rates])
        own = [
            0.0 if owner is None else _over_edge(*owner, parameter)
            for owner, parameter in zip(owners, params, strict=True)
        ]
        known = [scale for scale in own if scale is not None]
        optimizer_sharpness = None
        if len(known) == len(own):
            plain = [scale for scale in known if isinstance(scale, float)]
            ratios = {
                round(GRADIENT_DESCENT * scale / rate, 12) for scale, rate in zip(plain, rates, strict=False) if rate
            }
            if len(plain) == len(known) and len(ratios) <= 1:  # a multiple of lr_sharpness
                optimizer_sharpness = lr_sharpness * ratios.pop() if ratios else 0.0
            elif len(plain) == len(known) or preconditioned:
                optimizer_sharpness = largest(known)
        rate = single_rate(params, optimizers)
        edge = GRADIENT_DESCENT / rate - decays[0] if rate and sign > 0 and len(set(decays)) == 1 else None
        return cls(lr_sharpness, edge, optimizer_sharpness)


def _flat(values: Sequence[float | Tensor], params: Sequence[Tensor], operator: CurvatureOperator) -> Tensor:
    """A number or a tensor for each parameter, as one vector."""
    parts = []
    for value, parameter in zip(values, params, strict=True):
        whole = torch.as_tensor(value, device=parameter.device)
        shape = real(parameter).shape
        if whole.ndim and whole.shape != shape:  # one number for each pair of reals
            whole = whole.unsqueeze(-1)
        parts.append(whole.to(dtype=operator.dtype).expand(shape).reshape(-1))
    return torch.cat(parts).to(device=operator.device)


def _coupled_decay(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float:
    """The weight decay that is part of the gradient, and so of the curvature."""
    is_decoupled = isinstance(optimizer, torch.optim.AdamW) or bool(group.get("decoupled_weight_decay"))
    return float(group["weight_decay"]) if isinstance(optimizer, COUPLED) and not is_decoupled else 0.0


def single_rate(params: Sequence[Tensor], optimizers: Sequence[torch.optim.Optimizer]) -> float | None:
    """The learning rate of all parameters, or ``None`` if there are several."""
    owners = _owners(params, optimizers)
    if not all(_has_rate(owner) for owner in owners):
        return None
    rates = {0.0 if owner is None else float(owner[1]["lr"]) for owner in owners}
    return rates.pop() if len(rates) == 1 else None


def plain_ratio(
    sharpness: float, params: Sequence[Tensor], optimizers: Sequence[torch.optim.Optimizer]
) -> float | None:
    """``lr (λ_max + wd)/2`` without a product; ``None`` if rates or decays differ, or an optimizer maximizes."""
    owners = [owner for owner in _owners(params, optimizers) if owner is not None]
    rate, decays = single_rate(params, optimizers), {_coupled_decay(*owner) for owner in owners}
    if rate is None or len(decays) != 1 or any(group.get("maximize") for _, group in owners):
        return None
    return rate * (sharpness + decays.pop()) / GRADIENT_DESCENT


def _owners(
    params: Sequence[Tensor], optimizers: Sequence[torch.optim.Optimizer]
) -> list[tuple[torch.optim.Optimizer, Mapping[str, Any]] | None]:
    """The optimizer and the parameter group of each parameter, or ``None``."""
    owners = {
        id(parameter): (optimizer, group)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return [owners.get(id(parameter)) for parameter in params]


def _has_rate(owner: tuple[torch.optim.Optimizer, Mapping[str, Any]] | None) -> bool:
    """Tell whether the optimizer has a learning rate; some work without."""
    return owner is None or isinstance(owner[1].get("lr"), int | float | Tensor)


def _over_edge(optimizer: torch.optim.Optimizer, group: Mapping[str, Any], parameter: Tensor) -> float | Tensor | None:
    """The scale of the curvature that puts this optimizer's edge at 1, lr over edge and preconditioner, if known."""
    lr, state = float(group["lr"]), optimizer.state.get(parameter, {})
    if not state and optimizer.state and not isinstance(optimizer, torch.optim.SGD):
        return 0.0  # other parameters have moved, but this one had no gradient
    if isinstance(optimizer, torch.optim.SGD):
        beta = float(group["momentum"])
        if beta and group["dampening"]:
            return None
        return lr * (1 + 2 * beta) / (2 + 2 * beta) if group["nesterov"] else lr / (2 + 2 * beta)
    if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        if "exp_avg_sq" not in state:  # before the first step
            return None
        beta1, beta2 = (float(beta) for beta in group["betas"])
        step = float(state["step"])
        second = real(state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"])
        root = (second / (1 - beta2**step)).sqrt() + group["eps"]
        return torch.as_tensor(lr * (1 - beta1) / (2 + 2 * beta1) / ((1 - beta1**step) * root))
    if isinstance(optimizer, torch.optim.RMSprop) and not group["momentum"] and not group["centered"]:
        if "square_avg" not in state:
            return None
        return torch.as_tensor(lr / GRADIENT_DESCENT / (real(state["square_avg"]).sqrt() + group["eps"]))
    return None
