"""The Gauss–Newton operator's two ways of pushing a vector forward, against the dense Jacobian and each other."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lightning_ww.curvature import GGNOperator, HessianOperator
from lightning_ww.curvature.ggn import Engine
from lightning_ww.curvature.operators import WrongDerivativeError

X = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 3


def cross_entropy(z: Tensor) -> Tensor:
    return functional.cross_entropy(z, Y)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.BatchNorm1d(6), nn.Linear(6, 3)).double().eval()


def dense(model: nn.Module, params: list[nn.Parameter]) -> Tensor:
    """JᵀHJ with J row by row and H by torch.autograd.functional."""
    z = model(X)
    rows = [torch.autograd.grad(value, params, retain_graph=True) for value in z.view(-1)]
    J = torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])
    H = torch.autograd.functional.hessian(lambda s: cross_entropy(s.view_as(z)), z.detach().view(-1))  # type: ignore[no-untyped-call]
    return torch.as_tensor(J.T @ H @ J)


@pytest.mark.parametrize("engine", ["dual", "double_vjp", "auto"])
def test_products_equal_the_dense_matrixs(engine: Engine) -> None:
    model = net()
    params = list(model.parameters())
    G = GGNOperator(lambda: model(X), cross_entropy, params, engine=engine)
    expected = dense(model, params)
    for seed in range(4):
        v = torch.randn(G.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(G @ v, expected @ v, rtol=1e-10, atol=1e-13)
    assert G.engine in ("dual", "double_vjp") if engine == "auto" else G.engine == engine


def test_the_weights_are_as_they_were_and_other_graphs_over_them_hold() -> None:
    model = net()
    params = list(model.parameters())
    loss = cross_entropy(model(X))
    before = [(p.detach().clone(), p._version) for p in params]
    G = GGNOperator(lambda: model(X), cross_entropy, params, engine="dual")
    G @ torch.ones(G.shape[0], dtype=torch.float64)
    assert all(
        torch.equal(p, value) and p._version == version for p, (value, version) in zip(params, before, strict=True)
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert not any(torch._C._functorch.is_gradtrackingtensor(p) for p in params)


def test_several_batches_are_weighted_by_their_sizes() -> None:
    model = net()
    params = list(model.parameters())
    parts = [(14.0, lambda: model(X[:14])), (6.0, lambda: model(X[14:]))]
    losses = [lambda z: functional.cross_entropy(z, Y[:14]), lambda z: functional.cross_entropy(z, Y[14:])]
    v = torch.randn(sum(p.numel() for p in params), dtype=torch.float64)
    whole = GGNOperator(lambda: model(X), cross_entropy, params)
    torch.testing.assert_close(GGNOperator(parts, losses, params) @ v, whole @ v, rtol=1e-10, atol=1e-13)


class NoForwardDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        return torch.as_tensor(upstream[0] * ctx.saved_tensors[0].cos())


class OtherForwardDerivative(NoForwardDerivative):
    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return 3 * tangents[0]


class OnceDifferentiable(NoForwardDerivative):
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        return torch.as_tensor(upstream[0] * ctx.saved_tensors[0].cos())


class NoTangent(NoForwardDerivative):
    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return torch.zeros_like(tangents[0])


def test_a_forward_derivative_that_is_zero_is_an_error_too() -> None:
    w = torch.randn(5, dtype=torch.float64, requires_grad=True)
    forced = GGNOperator(lambda: NoTangent.apply(w), lambda z: z.square().sum(), [w], engine="dual")  # type: ignore[no-untyped-call]
    with pytest.raises(WrongDerivativeError):
        forced @ torch.ones(5, dtype=torch.float64)


def test_a_function_with_neither_derivative_is_an_error() -> None:
    apply: Any = OnceDifferentiable.apply
    w = torch.randn(5, dtype=torch.float64, requires_grad=True)
    G = GGNOperator(lambda: w + apply(w), lambda z: z.square().sum(), [w])
    with pytest.raises((RuntimeError, WrongDerivativeError)):
        G @ torch.ones(5, dtype=torch.float64)
    forced = GGNOperator(lambda: w + apply(w), lambda z: z.square().sum(), [w], engine="double_vjp")
    with pytest.raises(WrongDerivativeError, match="not the transpose of its backward pass"):
        forced @ torch.ones(5, dtype=torch.float64)


@pytest.mark.parametrize("function", [NoForwardDerivative, OtherForwardDerivative, NoTangent])
def test_a_function_without_its_forward_derivative_takes_the_other_way(function: Any) -> None:
    w = torch.randn(5, dtype=torch.float64, requires_grad=True)
    G = GGNOperator(lambda: function.apply(w), lambda z: z.square().sum(), [w])
    v = torch.randn(5, dtype=torch.float64)
    torch.testing.assert_close(G @ v, 2 * w.detach().cos().square() * v)
    assert G.engine == "double_vjp"


def test_a_wrong_forward_derivative_is_found_among_a_million_parameters() -> None:
    w = torch.randn(1_000_000, requires_grad=True)
    apply: Any = OtherForwardDerivative.apply
    forced = GGNOperator(lambda: apply(w), lambda z: z.square().sum(), [w], engine="dual")
    with pytest.raises(WrongDerivativeError):
        forced @ torch.ones(1_000_000)


def test_gauss_newton_is_the_hessian_of_a_linear_softmax_and_both_are_the_closed_form() -> None:
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    p = torch.softmax(X @ weight.detach().T, 1)
    expected = sum(
        torch.kron(torch.diag(p[i]) - torch.outer(p[i], p[i]), torch.outer(X[i], X[i])) for i in range(len(X))
    ) / len(X)
    H = HessianOperator(lambda: cross_entropy(X @ weight.T), [weight])
    G = GGNOperator(lambda: X @ weight.T, cross_entropy, [weight])
    torch.testing.assert_close(H.to_dense(), torch.as_tensor(expected), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(G.to_dense(), torch.as_tensor(expected), rtol=1e-10, atol=1e-13)


def test_outputs_that_do_not_depend_on_a_parameter_give_zero_rows() -> None:
    a, b = (torch.ones(2, requires_grad=True) for _ in range(2))
    for engine in ("dual", "double_vjp"):
        G = GGNOperator(lambda: 2 * a, lambda z: z.square().sum(), [a, b], engine=engine)
        assert torch.equal(G.to_dense(), torch.diag(torch.tensor([8.0, 8.0, 0.0, 0.0])))


def test_an_unknown_engine_is_an_error() -> None:
    message = "`GGNOperator(engine='x')`: expected one of ('auto', 'dual', 'double_vjp')."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GGNOperator(lambda: torch.zeros(1), cross_entropy, [], engine="x")  # type: ignore[arg-type]
