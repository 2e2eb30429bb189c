"""Dead and saturated units, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_ww.gradients import activations


def test_dead_units_are_those_that_are_zero_everywhere() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 6), nn.ReLU())
    with torch.no_grad():
        model[0].bias[1] = -100  # one channel of four
        model[3].bias[:3] = -100  # three of six
    x = torch.randn(20, 1, 8, 8)
    first, second = activations(model, lambda: model(x))
    assert (first.name, first.kind, first.num_units) == ("1", "ReLU", 4)
    assert first.dead_share == pytest.approx(0.25)
    assert second.dead_share is not None
    assert second.dead_share >= 0.5
    assert first.saturated_share is None
    with torch.no_grad():
        assert first.std == pytest.approx(float(model[1](model[0](x)).std()), rel=1e-5)
    assert not any(module._forward_hooks for module in model.modules())


def test_saturated_outputs_are_those_close_to_a_bound() -> None:
    x = torch.tensor([[-9.0, -1.0, 0.0, 1.0, 9.0, 8.0]])
    tanh, sigmoid = nn.Tanh(), nn.Sigmoid()
    model = nn.ModuleDict({"tanh": tanh, "sigmoid": sigmoid})
    first, second = activations(model, lambda: (tanh(x), sigmoid(x)))
    assert first.saturated_share == pytest.approx(0.5)
    assert second.saturated_share == pytest.approx(0.5)
    assert first.dead_share is None


def test_sequences_have_their_features_last_and_a_module_that_is_called_twice_counts_once() -> None:
    relu = nn.ReLU()
    x = torch.zeros(2, 5, 3)
    x[:, :, 0] = 1
    y = torch.zeros(2, 5, 3)
    y[:, :, 1] = 1
    (found,) = activations(relu, lambda: (relu(x), relu(y)))
    assert found.num_units == 3
    assert found.dead_share == pytest.approx(1 / 3)


def test_hooks_are_removed_after_an_error_and_patterns_choose() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Tanh())

    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        activations(model, fail)
    assert not any(module._forward_hooks for module in model.modules())
    assert [one.name for one in activations(model, lambda: model(torch.ones(2, 2)), "1")] == ["1"]
    with pytest.raises(ValueError, match="matches no activation module"):
        activations(model, lambda: None, "x")
    nothing: Any = 3
    with pytest.raises(ValueError, match="forward"):
        activations(model, nothing)
    assert activations(nn.Sequential(nn.Linear(2, 2)), lambda: None) == ()
