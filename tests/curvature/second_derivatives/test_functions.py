"""Operations whose second derivative is ours, against torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.derivatives import agree, of_module
from torch import Tensor, nn
from torch.nn import functional


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(5, 3, dtype=torch.float64)


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
