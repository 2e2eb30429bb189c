"""Second derivatives that are wrong without an error are found, and right ones pass."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from helpers.custom_functions import HiddenIntermediate, OnceDifferentiable
from torch import Tensor, nn
from torch.nn import functional

from lightning_ww.curvature.operators import WrongDerivativeError
from lightning_ww.curvature.second_derivatives.self_check import check_second_derivatives


class OtherBackward(torch.autograd.Function):
    """A straight-through trick whose backward is no derivative of anything."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.round()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.as_tensor(upstream[0] * (1 + torch.cumsum(x, -1)))


RIGHT: dict[str, Any] = {
    "relu": torch.relu,
    "leaky": functional.leaky_relu,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
}
WRONG: dict[str, tuple[Any, str]] = {
    "once differentiable": (OnceDifferentiable.apply, "cannot be differentiated again .*once_differentiable"),
    "hidden intermediate": (HiddenIntermediate.apply, "% off finite differences"),
    "random": (lambda x: functional.dropout(x, 0.4), "the loss is not the same twice"),
}


def run(activation: Any, seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    first, second, last = nn.Linear(20, 30), nn.Linear(30, 30), nn.Linear(30, 5)
    x, y = 3 * torch.randn(64, 20), torch.randint(5, (64,))
    params: list[Tensor] = [p for layer in (first, second, last) for p in layer.parameters()]
    before = [(p.detach().clone(), p._version) for p in params]

    def loss() -> Tensor:
        return functional.cross_entropy(last(activation(second(activation(first(x))))), y)

    try:
        check_second_derivatives(loss, params)
    finally:
        for p, (value, version) in zip(params, before, strict=True):
            assert torch.equal(p, value)
            assert p._version == version
            assert p.grad is None
    return params


@pytest.mark.parametrize("kind", RIGHT)
@pytest.mark.parametrize("seed", range(10))
def test_right_derivatives_pass(kind: str, seed: int) -> None:
    run(RIGHT[kind], seed)


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("seed", [1, 3])
def test_wrong_derivatives_are_found(kind: str, seed: int) -> None:
    activation, message = WRONG[kind]
    with pytest.raises(WrongDerivativeError, match=message):
        run(activation, seed)


def test_second_derivatives_that_are_not_symmetric_are_found() -> None:
    w = (torch.arange(8.0) / 3).requires_grad_()
    apply: Any = OtherBackward.apply
    with pytest.raises(WrongDerivativeError, match="not symmetric"):
        check_second_derivatives(lambda: apply(w).square().sum(), [w])


class RolledBackward(torch.autograd.Function):
    """The derivative of another element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        return torch.as_tensor(upstream[0] * (1 - ctx.saved_tensors[0].roll(1, -1).tanh() ** 2))


def test_they_are_found_among_many_parameters_too() -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(100, 300), nn.Linear(300, 10)
    x, y = 2 * torch.randn(64, 100), torch.randint(10, (64,))
    params: list[Tensor] = [*first.parameters(), *last.parameters()]
    wrong: Any = RolledBackward.apply
    for function, is_wrong in ((torch.tanh, False), (wrong, True)):

        def loss(function: Any = function) -> Tensor:
            return functional.cross_entropy(last(function(first(x))), y)

        if is_wrong:
            with pytest.raises(WrongDerivativeError):
                check_second_derivatives(loss, params)
        else:
            check_second_derivatives(loss, params)


def test_a_loss_that_is_linear_in_the_weights_passes() -> None:
    w = torch.ones(3, requires_grad=True)
    check_second_derivatives(lambda: w.sum(), [w])


class Forecaster(nn.Module):
    """A small Transformer, as forecasting packages have it."""

    def __init__(self, activation: Any) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, 32), nn.Linear(32, 12)
        self.body = nn.Transformer(32, 4, 2, 2, 64, 0.0, activation)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.T[..., None]) * 32**0.5
        return torch.as_tensor(self.last(self.body(h, h[-1:]))[0])


def check_forecaster(activation: Any, seed: int, *, is_detached: bool = False, samples: int | None = None) -> None:
    torch.manual_seed(seed)
    model = Forecaster(activation).eval()
    t = torch.arange(36.0) + torch.randint(0, 200, (32, 1))
    series = torch.sin(t / 12 * 6.28) + t / 100 + 0.1 * torch.randn(32, 36)
    exact = copy.deepcopy(model).double()

    def loss_of(model: nn.Module, series: Tensor) -> Tensor:
        forecast, target = model(series[:, :24]), series[:, 24:]
        if is_detached:  # a part of the loss that depends on the weights, and is not differentiated
            target = target + 3 * forecast.detach().square()
        return functional.mse_loss(forecast, target)

    @contextmanager
    def precise() -> Iterator[tuple[Callable[[], Tensor], Sequence[Tensor]]]:
        yield lambda: loss_of(exact, series[:samples].double()), list(exact.parameters())

    is_part = samples is not None
    check_second_derivatives(lambda: loss_of(model, series), list(model.parameters()), precise=precise, is_part=is_part)


ACTIVATIONS: dict[str, Any] = {"relu": functional.relu, "gelu": functional.gelu, "leaky": functional.leaky_relu}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("seed", [0, 1, 32])
@pytest.mark.parametrize("samples", [None, 2])
def test_a_sound_transformer_passes_and_one_with_a_detached_part_does_not(
    kind: str, seed: int, samples: int | None
) -> None:
    check_forecaster(ACTIVATIONS[kind], seed, samples=samples)
    with pytest.raises(WrongDerivativeError, match="part of the loss is detached"):
        check_forecaster(ACTIVATIONS[kind], seed, is_detached=True, samples=samples)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("first", range(0, 100, 20))
@pytest.mark.parametrize("samples", [None, 2])
def test_of_300_sound_transformers_none_is_refused_and_every_unsound_one_is(
    kind: str, first: int, samples: int | None
) -> None:
    for seed in range(first, first + 20):
        check_forecaster(ACTIVATIONS[kind], seed, samples=samples)
        with pytest.raises(WrongDerivativeError):
            check_forecaster(ACTIVATIONS[kind], seed, is_detached=True, samples=samples)


def test_rows_of_padding_which_get_no_gradient_are_not_taken_for_a_detached_part() -> None:
    torch.manual_seed(0)
    ids, y = torch.randint(10, (16, 3)), torch.randint(4, (16,))
    embedding, last = nn.Embedding(10, 6, padding_idx=0), nn.Linear(6, 4)
    model = nn.ModuleList([embedding, last])
    exact: Any = copy.deepcopy(model).double()

    def loss_of(layers: Any) -> Tensor:
        hidden = functional.layer_norm(functional.instance_norm(layers[0](ids)).tanh().mean(1), (6,))
        return functional.cross_entropy(layers[1](hidden), y)

    @contextmanager
    def precise() -> Iterator[tuple[Callable[[], Tensor], Sequence[Tensor]]]:
        yield lambda: loss_of(exact), list(exact.parameters())

    check_second_derivatives(lambda: loss_of(model), list(model.parameters()), precise=precise)
