"""The layers of a model by their parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_ww.gradients.layers import layers_of


def test_a_layer_is_a_module_with_its_own_parameters() -> None:
    model = nn.ModuleDict(
        {
            "words": nn.Embedding(10, 4),
            "encoder": nn.TransformerEncoderLayer(4, 2, 8),
            "relu": nn.ReLU(),
        }
    )
    found, left_out = layers_of(model)
    inner = ("self_attn", "self_attn.out_proj", "linear1", "linear2", "norm1", "norm2")
    assert [layer.name for layer in found] == ["words", *(f"encoder.{name}" for name in inner)]
    assert [layer.is_embedding for layer in found] == [True] + [False] * 6
    assert not left_out
    assert sum(len(layer.parameters) for layer in found) == len(list(model.parameters()))


def test_frozen_and_tied_layers_are_left_out_with_a_reason() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    found, left_out = layers_of(model)
    assert [layer.name for layer in found] == ["0"]
    assert [(one.name, one.reason) for one in left_out] == [("1", "tied"), ("2", "frozen")]
    assert "`0`" in left_out[0].sentence


def test_names_are_those_without_wrappers_and_a_model_of_one_layer_has_its_class() -> None:
    compiled: Any = torch.compile(nn.Sequential(nn.Linear(2, 2)))
    assert [layer.name for layer in layers_of(compiled)[0]] == ["0"]
    assert [layer.name for layer in layers_of(nn.Linear(2, 2))[0]] == ["Linear"]


def test_patterns_choose_and_an_unknown_one_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert [layer.name for layer in layers_of(model, "1")[0]] == ["1"]
    with pytest.raises(ValueError, match=r"`GradientMonitor\(layers='x'\)` matches no layer"):
        layers_of(model, "x")
    assert layers_of(model, "x", strict=False) == ([], [])
