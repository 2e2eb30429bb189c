"""Distances from the edge of stability: against dense matrices, and against what the optimizers really do."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_ww.curvature import EdgeOfStability, HessianOperator
from lightning_ww.curvature.edge_of_stability import plain_ratio

CURVATURES = torch.linspace(0.1, 3.0, 12, dtype=torch.float64)


def quadratic(start: float = 1e-3) -> tuple[list[Tensor], Any]:
    """Two parameters of six numbers each; curvature CURVATURES."""
    params = [torch.full((6,), start, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    return params, lambda: 0.5 * (CURVATURES * torch.cat(params).square()).sum()


def measured(params: list[Tensor], loss: Any, optimizer: torch.optim.Optimizer) -> Any:
    H = HessianOperator(loss, params)
    return EdgeOfStability.of(H, 3.0, params, [optimizer])


def test_one_learning_rate_is_lr_times_sharpness_over_two() -> None:
    params, loss = quadratic()
    found = measured(params, loss, torch.optim.SGD(params, lr=0.4))
    assert (found.lr_sharpness, found.stability_edge, found.optimizer_sharpness) == pytest.approx((0.6, 5.0, 0.6))


def test_several_learning_rates_are_the_dense_scaled_matrixs() -> None:
    params, loss = quadratic()
    optimizer = torch.optim.SGD([{"params": [params[0]], "lr": 1.0}, {"params": [params[1]], "lr": 0.1}], momentum=0.5)
    found = measured(params, loss, optimizer)
    D = torch.tensor([1.0] * 6 + [0.1] * 6, dtype=torch.float64)
    expected = float(torch.linalg.eigvalsh(torch.diag(D * CURVATURES)).max()) / 2
    assert found.lr_sharpness == pytest.approx(expected)
    assert found.stability_edge is None
    assert found.optimizer_sharpness == pytest.approx(expected * 2 / 3)


def test_parameters_that_no_optimizer_holds_do_not_move() -> None:
    params, loss = quadratic()
    found = measured(params, loss, torch.optim.SGD(params[:1], lr=1.0))
    assert found.lr_sharpness == pytest.approx(float(CURVATURES[5]) / 2)
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    assert EdgeOfStability.of(HessianOperator(loss, params), 3.0, params, [other]) is None


def frozen_second_moment(params: list[Tensor], optimizer: torch.optim.Optimizer, key: str) -> None:
    """Past steps by which the preconditioner has settled: different for each number, and staying as it is."""
    for i, parameter in enumerate(params):
        second = torch.linspace(0.5, 2.0, 6, dtype=torch.float64) * (i + 1)
        optimizer.state[parameter] = {"step": torch.tensor(1e6), key: second}
        if key == "exp_avg_sq":
            optimizer.state[parameter]["exp_avg"] = torch.zeros(6, dtype=torch.float64)


OPTIMIZERS: dict[str, Any] = {
    "gradient descent": lambda params: torch.optim.SGD(params, lr=1.0),
    "momentum": lambda params: torch.optim.SGD(params, lr=1.0, momentum=0.9),
    "nesterov": lambda params: torch.optim.SGD(params, lr=1.0, momentum=0.9, nesterov=True),
    "adam": lambda params: torch.optim.Adam(params, lr=1.0, betas=(0.9, 1 - 1e-5)),
    "adamw": lambda params: torch.optim.AdamW(params, lr=1.0, betas=(0.8, 1 - 1e-5), weight_decay=0),
    "rmsprop": lambda params: torch.optim.RMSprop(params, lr=1.0, alpha=1 - 1e-9),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(("ratio", "grows"), [(0.97, False), (1.03, True)])
def test_the_optimizer_diverges_beyond_its_edge_and_not_below(kind: str, ratio: float, grows: bool) -> None:
    params, loss = quadratic(1e-6)
    optimizer = OPTIMIZERS[kind](params)
    if kind in ("adam", "adamw"):
        frozen_second_moment(params, optimizer, "exp_avg_sq")
    elif kind == "rmsprop":
        frozen_second_moment(params, optimizer, "square_avg")
    at_one = measured(params, loss, optimizer).optimizer_sharpness
    for group in optimizer.param_groups:
        group["lr"] = ratio / at_one
    assert measured(params, loss, optimizer).optimizer_sharpness == pytest.approx(ratio)
    reached = []
    for _ in range(300):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        reached.append(max(float(parameter.detach().abs().max()) for parameter in params))
    assert (max(reached) > 1e-4) == grows  # beyond it Adam's second moment grows, too, and catches it again


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda params: torch.optim.Adam(params, lr=0.1),  # before its first step
        lambda params: torch.optim.RMSprop(params, lr=0.1),
        lambda params: torch.optim.RMSprop(params, lr=0.1, centered=True),
        lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.5),
        lambda params: torch.optim.Adagrad(params, lr=0.1),
    ],
)
def test_an_optimizer_whose_edge_is_not_known_has_none(optimizer: Any) -> None:
    params, loss = quadratic()
    found = measured(params, loss, optimizer(params))
    assert found.optimizer_sharpness is None
    assert found.lr_sharpness == pytest.approx(0.15)


def test_a_learning_rate_of_zero_has_no_edge() -> None:
    params, loss = quadratic()
    found = measured(params, loss, torch.optim.SGD(params, lr=0.0, momentum=0.9))
    assert (found.lr_sharpness, found.stability_edge, found.optimizer_sharpness) == (0.0, None, 0.0)


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize(("maximize", "largest"), [(False, 3.0), (True, -0.1)])
def test_coupled_decay_adds_to_the_curvature_and_an_ascent_turns_its_sign(
    decay: float, maximize: bool, largest: float
) -> None:
    params, loss = quadratic()
    optimizer = torch.optim.SGD(params, lr=0.4, weight_decay=decay, maximize=maximize)
    H = HessianOperator(loss, params)
    found = EdgeOfStability.of(H, 3.0, params, [optimizer], lambda_min=0.1)
    assert found is not None
    assert found.lr_sharpness == pytest.approx(0.4 * (largest + decay) / 2)
    by_products = EdgeOfStability.of(H, 3.0, params, [optimizer])
    assert by_products is not None
    assert by_products.lr_sharpness == pytest.approx(found.lr_sharpness, rel=1e-6)
    assert plain_ratio(3.0, params, [optimizer]) == (None if maximize else pytest.approx(found.lr_sharpness))


def test_at_the_edge_with_weight_decay_gradient_descent_neither_grows_nor_shrinks() -> None:
    params, loss = quadratic()
    edge = measured(params, loss, torch.optim.SGD(params, lr=1.0, weight_decay=0.7)).lr_sharpness
    sizes = []
    for factor in (0.99, 1.01):
        weights, own = quadratic()
        optimizer = torch.optim.SGD(weights, lr=factor / edge, weight_decay=0.7)
        for _ in range(300):
            optimizer.zero_grad()
            own().backward()
            optimizer.step()
        sizes.append(float(torch.cat(weights).detach().norm()))
    assert sizes[0] < 1e-4 < sizes[1]


def test_decoupled_decay_does_not_count() -> None:
    params, loss = quadratic()
    plain = measured(params, loss, torch.optim.AdamW(params, lr=0.4, weight_decay=0.5)).lr_sharpness
    assert plain == pytest.approx(0.6)


DECAYING = [
    kind
    for kind in vars(torch.optim).values()
    if isinstance(kind, type) and "weight_decay" in inspect.signature(kind).parameters
]


@pytest.mark.parametrize("kind", DECAYING)
@pytest.mark.parametrize("options", [{}, {"decoupled_weight_decay": True}])
def test_decay_counts_where_a_gradient_of_minus_decay_times_weight_moves_nothing(
    kind: Any, options: dict[str, bool]
) -> None:
    known = inspect.signature(kind).parameters
    options = {name: value for name, value in options.items() if name in known}
    own = {"lambd": 0.0} if kind is torch.optim.ASGD else {}  # the decay of its own kind
    weight = torch.full((2, 2), 3.0, requires_grad=True)
    optimizer = kind([weight], lr=0.1, weight_decay=0.5, **options, **own)
    for _ in range(10):  # the first ones of RAdam are those of gradient descent
        weight.grad = -0.5 * weight.detach()
        optimizer.step()
    is_coupled = bool((weight.detach() == 3.0).all())
    assert plain_ratio(3.0, [weight], [optimizer]) == pytest.approx(0.1 * (3.0 + 0.5 * is_coupled) / 2)


def test_a_decay_that_is_a_tensor_counts_and_an_unknown_optimizer_has_none() -> None:
    class Unknown(torch.optim.Optimizer):
        """Has a weight decay, nobody knows which."""

        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 0.1, "weight_decay": 0.5})

    weight = torch.ones(2, requires_grad=True)
    tensor = torch.optim.SGD([weight], lr=0.1, weight_decay=torch.tensor(0.5))
    assert plain_ratio(3.0, [weight], [tensor]) == pytest.approx(0.175)
    assert plain_ratio(3.0, [weight], [Unknown([weight])]) == pytest.approx(0.15)
