"""Recurrent layers step by step, against torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.derivatives import agree, of_module
from torch import Tensor, nn

from lightning_ww.curvature.second_derivatives.recurrent import Step, gru_step, layers, lstm_step, relu_step, tanh_step

KINDS: dict[str, tuple[Callable[..., nn.RNNBase], Step]] = {
    "lstm": (nn.LSTM, lstm_step),
    "lstm with projection": (lambda *a, **k: nn.LSTM(*a, **k, proj_size=2), lstm_step),
    "gru": (nn.GRU, gru_step),
    "tanh": (nn.RNN, tanh_step),
    "relu": (lambda *a, **k: nn.RNN(*a, **k, nonlinearity="relu"), relu_step),
}


def by_steps(module: nn.RNNBase, x: Tensor, step: Step) -> Any:
    sides = 2 if module.bidirectional else 1
    shapes = [module.proj_size or module.hidden_size, *([module.hidden_size] if isinstance(module, nn.LSTM) else [])]
    batch = x.shape[0 if module.batch_first else 1]
    states = [torch.zeros(module.num_layers * sides, batch, size, dtype=x.dtype) for size in shapes]
    weights: Any = module._flat_weights
    how = (module.bias, module.num_layers, 0.0, False, module.bidirectional, module.batch_first)
    return layers(step, x, states, weights, *how)


@pytest.mark.parametrize("how", [{}, {"bias": False}, {"bidirectional": True, "num_layers": 2}, {"batch_first": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_last_states_are_torchs(kind: str, how: dict[str, Any]) -> None:
    torch.manual_seed(0)
    make, step = KINDS[kind]
    module, x = make(3, 4, **how).double(), torch.randn(3, 2, 3, dtype=torch.float64)
    output, *states = by_steps(module, x, step)
    expected, last = module(x)
    torch.testing.assert_close(output, expected)
    for found, known in zip(states, last if isinstance(last, tuple) else (last,), strict=True):
        torch.testing.assert_close(found, known)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_torchs(kind: str) -> None:
    torch.manual_seed(0)
    make, step = KINDS[kind]
    module, x = make(3, 4).double(), torch.randn(3, 2, 3, dtype=torch.float64)
    params = list(module.parameters())
    found = torch.autograd.grad(by_steps(module, x, step)[0].sin().sum(), params)
    for ours, torchs in zip(found, torch.autograd.grad(module(x)[0].sin().sum(), params), strict=True):
        torch.testing.assert_close(ours, torchs)


def test_dropout_between_layers_is_left_to_torch() -> None:
    weights: Any = nn.LSTM(2, 2, num_layers=2, dropout=0.5)._flat_weights
    states = [torch.zeros(2, 1, 2)] * 2
    how = (True, 2, 0.5, True, False, False)
    assert layers(lstm_step, torch.zeros(1, 1, 2), states, weights, *how) is NotImplemented


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
def test_the_hessian_is_torchs(kind: str) -> None:
    torch.manual_seed(0)
    module, data = KINDS[kind][0](2, 2).double(), torch.randn(3, 1, 2, dtype=torch.float64)
    start = torch.cat([*(p.detach().flatten() for p in module.parameters()), data.flatten()])
    agree(of_module(module, data, lambda y: y[0].sin().square().sum()), start)
