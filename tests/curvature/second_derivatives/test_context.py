"""Operations whose second derivative is ours, against torch's own, and in losses that differentiate inside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lightning_ww.curvature import GGNOperator, HessianOperator
from lightning_ww.curvature.second_derivatives.context import differentiable_twice

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu by tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "silu in place": lambda x: functional.silu(x * 1, inplace=True),
    "mish": functional.mish,
    "softmax": lambda x: torch.softmax(x, -1),
    "softmax along rows": lambda x: x.softmax(0),
    "softmax in double": lambda x: functional.softmax(x, -1, dtype=torch.float64),
    "softmax in place of its output": lambda x: torch.softmax(x, -1).mul(1).relu_(),
    "log_softmax": lambda x: functional.log_softmax(x, dim=1),
    "log_softmax method": lambda x: x.log_softmax(-1).exp(),
}
LABELS = torch.tensor([0, 2, 1, -100, 2])
CROSS_ENTROPIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "weighted": {"weight": torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)},
    "smooth": {"label_smoothing": 0.1},
    "another ignored": {"ignore_index": 2, "target": LABELS.clamp(min=0)},
    "probabilities": {"target": torch.rand(5, 3, generator=torch.Generator().manual_seed(0)).double()},
}
CONVOLUTIONS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (lambda: nn.Conv1d(2, 3, 3), (2, 2, 6)),
    "2d": (lambda: nn.Conv2d(2, 3, 3, padding=1, bias=False), (2, 2, 4, 3)),
    "2d, strides": (lambda: nn.Conv2d(2, 2, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 2, 5, 4)),
    "2d, dilated": (lambda: nn.Conv2d(1, 2, 2, dilation=2), (2, 1, 4, 4)),
    "2d, groups": (lambda: nn.Conv2d(4, 4, 2, groups=2), (1, 4, 3, 3)),
    "2d, depthwise": (lambda: nn.Conv2d(3, 3, 2, groups=3), (1, 3, 3, 3)),
    "2d, same": (lambda: nn.Conv2d(2, 2, 3, padding="same"), (1, 2, 3, 3)),
    "2d, of one image": (lambda: nn.Conv2d(2, 2, 2), (2, 3, 3)),
    "2d, circular": (lambda: nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), (2, 1, 3, 3)),
    "3d": (lambda: nn.Conv3d(1, 2, 2), (1, 1, 3, 2, 3)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2, output_padding=1), (1, 2, 3)),
    "transposed 2d": (lambda: nn.ConvTranspose2d(2, 2, 2, stride=2, padding=1, groups=2, dilation=2), (1, 2, 3, 3)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(1, 2, 2), (1, 1, 2, 2, 2)),
}


def flat_hessian(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Torch's own, of its own operations."""
    dense = torch.autograd.functional.hessian(loss, x)  # type: ignore[no-untyped-call]
    return torch.as_tensor(dense).reshape(x.numel(), x.numel())


def of_module(module: nn.Module, data: Tensor, judge: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The loss of the module's flat parameters, and of the data behind them."""
    shapes = {name: p.shape for name, p in module.named_parameters()}

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [shape.numel() for shape in shapes.values()] + [data.numel()])
        weights = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=False)}
        return judge(torch.func.functional_call(module, weights, parts[-1].view_as(data)))

    return loss


def jacobian(values: Tensor, params: list[nn.Parameter]) -> Tensor:
    """Row by row, by torch's own operations."""

    def row(value: Tensor) -> Tensor:
        parts = torch.autograd.grad(value, params, retain_graph=True, allow_unused=True, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts])

    return torch.stack([row(value) for value in values.flatten()])


def agree(loss: Callable[[Tensor], Tensor], x: Tensor) -> None:
    expected = flat_hessian(loss, x.detach())
    leaf = x.detach().clone().requires_grad_()
    found = HessianOperator(lambda: loss(leaf), [leaf]).to_dense()
    assert expected.norm() > 0
    torch.testing.assert_close(found, (expected + expected.T) / 2, rtol=1e-10, atol=1e-10 * float(expected.norm()))


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(5, 3, dtype=torch.float64)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_hessians_through_an_activation_are_torchs(name: str, x: Tensor) -> None:
    mix = torch.randn(3, 3, dtype=torch.float64)
    agree(lambda x: (ACTIVATIONS[name]((x @ mix).tanh()) @ mix).sin().sum(), x)


@pytest.mark.parametrize("name", CROSS_ENTROPIES)
def test_hessians_through_a_cross_entropy_are_torchs(name: str, x: Tensor) -> None:
    agree(
        lambda x: functional.cross_entropy(**{"input": x.sin() * 3, "target": LABELS, **CROSS_ENTROPIES[name]}) ** 2, x
    )


def test_a_cross_entropy_of_pixels_and_of_one_sample_is_torchs(x: Tensor) -> None:
    agree(lambda x: functional.cross_entropy(x.sin().T.reshape(1, 3, 5), LABELS.reshape(1, 5)), x)
    agree(lambda x: functional.cross_entropy(x[0].sin(), LABELS[0]), x)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_hessians_through_a_convolution_are_torchs(name: str) -> None:
    torch.manual_seed(0)
    make, shape = CONVOLUTIONS[name]
    module, data = make().double(), torch.randn(shape, dtype=torch.float64)
    start = torch.cat([*(p.detach().flatten() for p in module.parameters()), data.flatten()])
    agree(of_module(module, data, lambda y: y.sin().square().sum()), start)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_hessians_through_a_batch_norm_are_torchs(affine: bool, training: bool) -> None:
    torch.manual_seed(0)
    module = nn.BatchNorm2d(2, affine=affine).double().train()
    data = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    module(data * 3 + 1)  # statistics that are not those of a new module
    for p in module.parameters():
        nn.init.normal_(p)
    module.train(training)
    module.momentum = 0.0
    start = torch.cat([*(p.detach().flatten() for p in module.parameters()), data.flatten()])
    agree(of_module(module, data, lambda y: y.sin().square().sum()), start)


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_hessians_through_a_layer_norm_are_torchs(shape: tuple[int, ...], bias: bool, eps: float) -> None:
    torch.manual_seed(0)
    module = nn.LayerNorm(shape, eps=eps, bias=bias).double()
    for p in module.parameters():
        nn.init.normal_(p)
    data = torch.randn(2, 2, 2, 3, dtype=torch.float64)
    start = torch.cat([*(p.detach().flatten() for p in module.parameters()), data.flatten()])
    agree(of_module(module, data, lambda y: y.sin().square().sum()), start)
    frozen = data.clone()  # by the weights alone, and by the data alone
    params = list(module.parameters())
    alone = HessianOperator(lambda: module(frozen).sin().square().sum(), params).to_dense()
    full = flat_hessian(of_module(module, data, lambda y: y.sin().square().sum()), start)
    size = sum(p.numel() for p in params)
    torch.testing.assert_close(alone, full[:size, :size], rtol=1e-9, atol=1e-10)
    module.requires_grad_(False)
    leaf = data.clone().requires_grad_()
    by_data = HessianOperator(lambda: module(leaf).sin().square().sum(), [leaf]).to_dense()
    torch.testing.assert_close(by_data, full[size:, size:], rtol=1e-9, atol=1e-10)


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
