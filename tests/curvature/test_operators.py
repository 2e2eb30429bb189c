"""Products with Hessian and Gauss–Newton matrix against dense ones and closed forms, in float64."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import torch
from linear_operator import LinearOperator
from torch import Tensor, nn
from torch.nn import functional

from lightning_ww.curvature import GGNOperator, HessianOperator, spectral_density
from lightning_ww.curvature import operators as operators_module
from lightning_ww.curvature.krylov import lanczos

LOSSES: dict[str, Any] = {
    "cross-entropy": (nn.functional.cross_entropy, lambda n: torch.arange(n) % 3),
    "mse": (nn.functional.mse_loss, lambda n: torch.randn(n, 3, dtype=torch.float64)),
    "bce": (nn.functional.binary_cross_entropy_with_logits, lambda n: torch.rand(n, 3, dtype=torch.float64)),
}


def _dense(function: Any, at: Tensor) -> Tensor:
    return torch.as_tensor(torch.autograd.functional.hessian(function, at))  # type: ignore[no-untyped-call]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def dense_hessian(loss: Any, params: Sequence[Tensor]) -> Tensor:
    """By torch.autograd.functional.hessian on the flat weights."""
    shapes = [p.shape for p in params]
    flat = torch.cat([p.detach().reshape(-1) for p in params])

    def of_flat(w: Tensor) -> Tensor:
        parts = torch.split(w, [s.numel() for s in shapes])
        return loss([part.reshape(s) for part, s in zip(parts, shapes, strict=True)])  # type: ignore[no-any-return]

    return _dense(of_flat, flat)


def functional_loss(model: nn.Module, x: Tensor, criterion: Any, y: Tensor) -> Any:
    names = [name for name, _ in model.named_parameters()]
    return lambda params: criterion(torch.func.functional_call(model, dict(zip(names, params, strict=True)), (x,)), y)


@pytest.mark.parametrize("kind", LOSSES)
def test_hessian_products_equal_the_dense_hessians(kind: str) -> None:
    model, (criterion, target) = net(), LOSSES[kind]
    x, y = torch.randn(20, 4, dtype=torch.float64), target(20)
    params = list(model.parameters())
    H = HessianOperator(lambda: criterion(model(x), y), params)
    dense = dense_hessian(functional_loss(model, x, criterion, y), params)
    v = torch.randn(H.shape[0], dtype=torch.float64)
    torch.testing.assert_close(H @ v, dense @ v, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(H.to_dense(), dense, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", LOSSES)
def test_ggn_products_equal_the_dense_jacobians(kind: str) -> None:
    model, (criterion, target) = net(), LOSSES[kind]
    x, y = torch.randn(20, 4, dtype=torch.float64), target(20)
    params = list(model.parameters())
    G = GGNOperator(lambda: model(x), lambda z: criterion(z, y), params)
    z = model(x)
    rows = [torch.autograd.grad(z.view(-1)[i], params, retain_graph=True) for i in range(z.numel())]
    J = torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])
    curvature = _dense(lambda s: criterion(s.view_as(z), y), z.detach().view(-1))
    v = torch.randn(G.shape[0], dtype=torch.float64)
    torch.testing.assert_close(G @ v, J.T @ (curvature @ (J @ v)), rtol=1e-10, atol=1e-12)
    assert torch.linalg.eigvalsh(G.to_dense()).min() > -1e-12


def test_hessian_of_a_linear_model_is_the_closed_form() -> None:
    x, y = torch.randn(30, 5, dtype=torch.float64), torch.randn(30, 1, dtype=torch.float64)
    layer = nn.Linear(5, 1, bias=False).double()
    H = HessianOperator(lambda: nn.functional.mse_loss(layer(x), y), list(layer.parameters()))
    torch.testing.assert_close(H.to_dense(), 2 / 30 * x.T @ x)


def test_several_batches_are_weighted_by_their_sizes() -> None:
    model, (criterion, target) = net(), LOSSES["cross-entropy"]
    x, y = torch.randn(30, 4, dtype=torch.float64), target(30)
    params = list(model.parameters())
    parts = [(20.0, lambda: criterion(model(x[:20]), y[:20])), (10.0, lambda: criterion(model(x[20:]), y[20:]))]
    v = torch.randn(sum(p.numel() for p in params), dtype=torch.float64)
    whole = HessianOperator(lambda: criterion(model(x), y), params)
    torch.testing.assert_close(HessianOperator(parts, params) @ v, whole @ v, rtol=1e-10, atol=1e-12)


def test_frozen_unused_and_tied_parameters() -> None:
    a, b, frozen = (torch.randn(3, dtype=torch.float64, requires_grad=i < 2) for i in range(3))
    H = HessianOperator(lambda: (a * frozen).square().sum(), [a, b, frozen, a])
    expected = torch.cat([2 * frozen.square(), torch.zeros(3)])
    torch.testing.assert_close(H.to_dense(), torch.diag(expected))


def test_attention_lstm_and_compiled_modules_have_second_derivatives() -> None:
    x = torch.randn(2, 5, 8)
    layers: list[nn.Module] = [
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        nn.LSTM(8, 8, batch_first=True),
        nn.Sequential(cast(nn.Module, torch.compile(nn.Linear(8, 8))), nn.Tanh()),
    ]
    for layer in layers:
        params = list(layer.parameters())

        def loss(layer: nn.Module = layer) -> Tensor:
            out = layer(x)
            return torch.as_tensor((out[0] if isinstance(out, tuple) else out).square().mean())

        H = HessianOperator(loss, params)
        u, v = torch.randn(2, H.shape[0])
        assert float(u @ (H @ v)) == pytest.approx(float(v @ (H @ u)), rel=1e-3, abs=1e-6)


def test_operator_is_built_once_and_leaves_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    original = operators_module.CurvatureOperator.__init__

    def counting(self: Any, *arguments: Any) -> None:
        built.append(1)
        original(self, *arguments)

    monkeypatch.setattr(operators_module.CurvatureOperator, "__init__", counting)
    model, (criterion, target) = net(), LOSSES["cross-entropy"]
    x, y, calls = torch.randn(20, 4, dtype=torch.float64), target(20), []

    def loss() -> Tensor:
        calls.append(1)
        return torch.as_tensor(criterion(model(x), y))

    H = HessianOperator(loss, list(model.parameters()))
    v = torch.randn(H.shape[0], 3, dtype=torch.float64)
    torch.testing.assert_close(H @ v, torch.stack([H @ v[:, i] for i in range(3)], dim=1))
    lanczos(lambda w: H @ w, v[:, 0], 5)
    assert isinstance(H, LinearOperator)
    assert (len(built), len(calls)) == (1, 1)
    assert all(p.grad is None for p in model.parameters())


def test_gpytorchs_tools_work_on_them() -> None:
    from linear_operator.utils.lanczos import lanczos_tridiag

    model, (criterion, target) = net(), LOSSES["mse"]
    x, y = torch.randn(40, 4, dtype=torch.float64), target(40)
    G = GGNOperator(lambda: model(x), lambda z: criterion(z, y), list(model.parameters()))
    start = torch.randn(G.shape[0], 1, dtype=torch.float64)
    _, T = lanczos_tridiag(G.matmul, 12, torch.float64, G.device, G.shape, init_vecs=start)
    ours = lanczos(lambda v: G @ v, start[:, 0], 12)
    torch.testing.assert_close(torch.linalg.eigvalsh(T), ours.ritz()[0], rtol=1e-8, atol=1e-8)
    rhs = torch.randn(G.shape[0], dtype=torch.float64)
    solved = G.add_jitter(0.1).solve(rhs)
    torch.testing.assert_close((G @ solved) + 0.1 * solved, rhs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: HessianOperator(lambda: torch.zeros(()), [torch.zeros(3)]),
            "`HessianOperator(params=...)` has no tensor that requires a gradient.",
        ),
        (
            lambda: HessianOperator(lambda: torch.zeros(2), [torch.zeros(3, requires_grad=True)]),
            "`HessianOperator(loss=...)`: expected a 0-d tensor, but got one of shape (2,).",
        ),
        (
            lambda: HessianOperator(
                lambda: torch.ones((), requires_grad=True) * 2, [torch.zeros(3, requires_grad=True)]
            ),
            "`HessianOperator(loss=...)` does not depend on any of `params`.",
        ),
        (
            lambda: HessianOperator(lambda: torch.zeros(()), torch.zeros(3, requires_grad=True)),  # type: ignore[arg-type]
            "`HessianOperator(params=...)`: expected several tensors, but got one: pass `[tensor]`.",
        ),
        (
            lambda: HessianOperator(lambda: torch.tensor(float("nan")), [torch.zeros(3, requires_grad=True)]),
            "`HessianOperator(loss=...)` gives a loss of nan.",
        ),
        (
            lambda: HessianOperator(lambda: 3.0, [torch.zeros(3, requires_grad=True)]),  # type: ignore[arg-type,return-value]
            "`HessianOperator(loss=...)`: expected a 0-d tensor, but got 3.0.",
        ),
        (
            lambda: HessianOperator([], [torch.zeros(3, requires_grad=True)]),
            "`HessianOperator(loss=...)`: expected one batch or more, each of a positive size, but got [].",
        ),
        (
            lambda: GGNOperator(lambda: torch.zeros(2), [], [torch.zeros(3, requires_grad=True)]),
            "`GGNOperator(loss=...)`: expected as many losses as outputs, but got 0.",
        ),
        (
            lambda: GGNOperator(lambda: torch.zeros(2), lambda z: z.sum(), [torch.zeros(3, requires_grad=True)]),
            "`GGNOperator(outputs=...)` does not depend on any of `params`.",
        ),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


KINDS: list[tuple[Callable[[], object], str]] = [
    (
        lambda: HessianOperator(cast(Any, 3), [torch.ones(1, requires_grad=True)]),
        "`HessianOperator(loss=...)`: expected a function",
    ),
    (
        lambda: HessianOperator(cast(Any, [3]), [torch.ones(1, requires_grad=True)]),
        "such a function, but got a list of something else.",
    ),
    (lambda: HessianOperator(torch.ones(()).sum, cast(Any, ["w"])), "expected one tensor or more, in a list, but got"),
    (
        lambda: spectral_density(cast(Any, "x")),
        "`spectral_density(operator=...)`: expected a square matrix or operator,",
    ),
    (lambda: spectral_density(torch.ones(3, 4)), "expected a square matrix or operator, but got a `Tensor`."),
]


@pytest.mark.parametrize(("call", "message"), KINDS)
def test_objects_of_another_kind_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize("kind", ["hessian", "ggn", "ggn by dual numbers"])
def test_after_an_optimizer_step_products_are_those_at_the_new_weights(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.randint(2, (8,))
    params = list(model.parameters())

    def operator() -> Any:
        if kind == "hessian":
            return HessianOperator(lambda: functional.cross_entropy(model(x), y), params)
        engine: Any = "dual" if "dual" in kind else "auto"
        return GGNOperator(lambda: model(x), lambda z: functional.cross_entropy(z, y), params, engine)

    old = operator()
    before = old.to_dense()
    functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(params, lr=0.5).step()
    torch.testing.assert_close(old.to_dense(), operator().to_dense())
    assert float((old.to_dense() - before).norm()) > 0.01


@pytest.mark.parametrize("reals", [1, 3, 4])
def test_products_with_complex_parameters_after_any_number_of_reals_equal_the_dense_hessian(reals: int) -> None:
    torch.manual_seed(0)
    gain = torch.randn(reals, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, dtype=torch.complex128, requires_grad=True)
    x = torch.randn(5, 4, dtype=torch.complex128)

    def outputs(gain: Tensor, weight: Tensor) -> Tensor:
        return torch.view_as_real((x @ weight.T).tanh() * gain.sum()).flatten(1)

    def loss(flat: Tensor) -> Tensor:
        pairs = flat[reals:].reshape(3, 4, 2)
        return outputs(flat[:reals], torch.complex(pairs[..., 0], pairs[..., 1])).square().mean()

    flat = torch.cat([gain.detach(), torch.view_as_real(weight.detach()).flatten()])
    dense = torch.autograd.functional.hessian(loss, flat)  # type: ignore[no-untyped-call]
    vector = torch.randn(len(flat), dtype=torch.float64)
    operator = HessianOperator(lambda: outputs(gain, weight).square().mean(), [gain, weight])
    torch.testing.assert_close(operator @ vector, dense @ vector, rtol=1e-10, atol=1e-12)
    products = [
        GGNOperator(lambda: outputs(gain, weight), lambda z: z.square().mean(), [gain, weight], engine) @ vector
        for engine in ("double_vjp", "dual")
    ]
    torch.testing.assert_close(products[0], products[1], rtol=1e-10, atol=1e-12)
