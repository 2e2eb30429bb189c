"""Operations whose second derivative is ours, against torch's own, and in losses that differentiate inside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers.derivatives import jacobian
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lightning_ww.curvature import GGNOperator, HessianOperator
from lightning_ww.curvature.second_derivatives.context import differentiable_twice


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(5, 3, dtype=torch.float64)


class Net(nn.Module):
    """All of them, one after the other; torch's own layer norm has a wrong third derivative, and is written out."""

    by_hand = False

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(1, 2, 2, stride=2), nn.BatchNorm1d(2)
        self.second, self.head = nn.ConvTranspose1d(2, 1, 2), nn.Linear(4, 3)
        self.last = nn.LayerNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.second(functional.gelu(self.norm(self.first(x[:, None]))))[:, 0]
        out = torch.as_tensor(self.head(functional.silu(z) * z.softmax(-1)))
        if not self.by_hand:
            return torch.as_tensor(self.last(out))
        shifted = out - out.mean(-1, keepdim=True)
        scale = (shifted.square().mean(-1, keepdim=True) + self.last.eps).rsqrt()
        return shifted * scale * self.last.weight + self.last.bias


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().double().eval()


DATA = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).double()
TARGET = torch.tensor([0, 1, 2, 0])


def test_the_network_of_these_tests_uses_our_functions(net: Net) -> None:
    seen: set[str] = set()

    def visit(node: Any) -> None:
        if node is not None and node not in visited:
            visited.add(node)
            seen.add(type(node).__name__)
            for parent, _ in node.next_functions:
                visit(parent)

    visited: set[Any] = set()
    with differentiable_twice():
        visit(functional.cross_entropy(net(DATA), TARGET).grad_fn)
    expected = {
        "ConvolutionBackward",
        "PointwiseBackward",
        "SoftmaxBackward",
        "LogSoftmaxBackward",
        "LayerNormBackward",
    }
    assert expected <= seen
    assert not [name for name in seen if "BatchNorm" in name or name in ("GeluBackward0", "ConvolutionBackward0")]


def test_of_a_backward_pass_that_is_linear_in_its_cotangents_nothing_else_is_written_down() -> None:
    net = nn.Conv1d(1, 2, 2).double()
    with differentiable_twice() as outside:
        value = functional.gelu(net(DATA[:, None]))
        cotangent = torch.ones_like(value, requires_grad=True)
        with differentiable_twice() as inside:
            assert inside is outside
            for is_linear in (True, False):
                with inside.linear_in_cotangents() if is_linear else contextlib.nullcontext():
                    (slope,) = torch.autograd.grad(value, net.weight, cotangent, create_graph=True)
                by_weight = torch.autograd.grad(slope.square().sum(), net.weight, allow_unused=True, retain_graph=True)
                assert (by_weight[0] is None) == is_linear
                assert float(torch.autograd.grad(slope.sum(), cotangent, retain_graph=True)[0].norm()) > 0


def penalized(net: nn.Module) -> Tensor:
    """A loss with a gradient inside: its Hessian is of third derivatives."""
    leaf = DATA.clone().requires_grad_()
    loss = functional.cross_entropy(net(leaf), TARGET)
    (slope,) = torch.autograd.grad(loss, leaf, create_graph=True)
    return loss + slope.square().sum()


def by_vmap(net: nn.Module) -> Tensor:
    weights: dict[str, Tensor] = dict(net.named_parameters())
    every = torch.func.vmap(lambda row: torch.func.functional_call(net, weights, row[None])[0])(DATA)
    return functional.cross_entropy(every, TARGET)


def by_jvp(net: nn.Module) -> Tensor:
    value, slope = torch.func.jvp(net, (DATA,), (torch.ones_like(DATA),))  # type: ignore[misc]
    return torch.as_tensor(functional.cross_entropy(value, TARGET) + slope.square().mean())


def by_many_at_once(net: nn.Module) -> Tensor:
    slopes = torch.autograd.functional.jacobian(net, DATA, create_graph=True, vectorize=True)  # type: ignore[no-untyped-call]
    return functional.cross_entropy(net(DATA), TARGET) + torch.as_tensor(slopes).square().mean()


def by_inner_grad(net: nn.Module) -> Tensor:
    slope = torch.func.grad(lambda x: functional.cross_entropy(net(x), TARGET))(DATA)
    return torch.as_tensor(slope).square().sum()


def by_checkpoint(net: nn.Module) -> Tensor:
    return functional.cross_entropy(checkpoint(net, DATA, use_reentrant=False), TARGET)


def plain(net: nn.Module) -> Tensor:
    return functional.cross_entropy(net(DATA), TARGET)


@pytest.mark.parametrize("loss", [plain, penalized, by_vmap, by_jvp, by_many_at_once, by_inner_grad, by_checkpoint])
def test_hessians_of_losses_that_differentiate_inside_are_torchs(loss: Callable[[nn.Module], Tensor], net: Net) -> None:
    params = list(net.parameters())
    net.by_hand = True
    value = loss(net)
    slope = torch.cat([part.flatten() for part in torch.autograd.grad(value, params, create_graph=True)])
    expected = jacobian(slope, params)
    net.by_hand = False
    found = HessianOperator(lambda: loss(net), params).to_dense()
    torch.testing.assert_close(found, (expected + expected.T) / 2, rtol=1e-9, atol=1e-10 * float(expected.norm()))


@pytest.mark.parametrize("positional", [torch.softmax, Tensor.softmax, torch.log_softmax, Tensor.log_softmax])
def test_the_dtype_that_is_asked_for_is_given(positional: Any) -> None:
    x = torch.randn(2, 3, requires_grad=True)
    with differentiable_twice():
        assert positional(x, -1, torch.float64).dtype == torch.float64
        assert functional.softmax(x, -1, 3, torch.float64).dtype == torch.float64


def test_products_with_several_vectors_at_once_are_those_with_each(net: Net) -> None:
    H = HessianOperator(lambda: plain(net), list(net.parameters()))
    many = torch.randn(3, H.shape[0], dtype=torch.float64)
    together = torch.func.vmap(lambda v: H @ v)(many)
    torch.testing.assert_close(together, torch.stack([H @ v for v in many]))


def test_products_can_be_had_in_inference_mode(net: Net) -> None:
    H = HessianOperator(lambda: plain(net), list(net.parameters()))
    v = torch.randn(H.shape[0], dtype=torch.float64)
    expected = H @ v
    with torch.inference_mode():
        torch.testing.assert_close(H @ v, expected)


def test_a_batch_norm_that_torch_refuses_is_refused_and_strides_are_torchs() -> None:
    norm = nn.BatchNorm1d(3).eval()
    with differentiable_twice():
        with pytest.raises(RuntimeError):
            norm(torch.randn(4, 1, 5, requires_grad=True))
        turned = torch.randn(4, 5, 3, requires_grad=True).transpose(1, 2)
        norm(turned).view(4, -1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_batch_norm_in_16_bits_is_as_precise_as_torchs(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3)
    norm(20 + 0.5 * torch.randn(100, 3))
    norm = norm.eval().to(dtype)
    x = (20 + 0.5 * torch.randn(50, 3)).to(dtype).requires_grad_()
    plain_result = norm(x)
    with differentiable_twice():
        torch.testing.assert_close(norm(x), plain_result, rtol=0, atol=0)


@pytest.mark.parametrize("engine", ["dual", "double_vjp"])
@pytest.mark.parametrize("with_slope", [False, True])
def test_gauss_newton_products_are_those_of_the_dense_jacobian(engine: Any, with_slope: bool, net: Net) -> None:
    """Also of outputs that contain gradients by the data, as of networks that solve differential equations."""
    params = list(net.parameters())

    def outputs() -> Tensor:
        if not with_slope:
            return torch.as_tensor(net(DATA))
        leaf = DATA.clone().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(net(leaf).sin().sum(), leaf, create_graph=True)[0]

    net.by_hand = True
    z = outputs()
    slopes = jacobian(z, params)
    net.by_hand = False
    expected = 2 * slopes.T @ slopes / z.numel()
    found = GGNOperator(outputs, lambda z: z.square().mean(), params, engine=engine).to_dense()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10 * float(expected.norm()))


@pytest.fixture(autouse=True)
def no_mode_is_left() -> Iterator[None]:
    yield
    assert not torch.overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
