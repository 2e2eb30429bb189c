"""The weight that the next forward pass uses, against the one that it did use; and nothing touched by reading it."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from helpers.networks import Restless
from torch import nn
from torch.nn.utils import parametrizations, prune

from lightning_ww.weights import effective


def after_a_step(layer: nn.Module) -> nn.Module:
    """The layer, one optimizer step after its last forward pass: a weight kept as an attribute is out of date."""
    layer.train()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    layer(torch.randn(5, 6, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    optimizer.step()
    return layer


def older_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        layer: nn.Module = nn.utils.weight_norm(nn.Linear(6, 4))
    return layer


def pruned_twice() -> nn.Module:
    layer = nn.Linear(6, 4)
    prune.l1_unstructured(layer, "weight", 0.3)  # type: ignore[no-untyped-call]
    prune.random_structured(layer, "weight", 0.25, dim=0)  # type: ignore[no-untyped-call]
    return layer


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(6, 4),
        lambda: parametrizations.weight_norm(nn.Linear(6, 4)),
        lambda: parametrizations.orthogonal(nn.Linear(6, 4)),
        lambda: parametrizations.spectral_norm(nn.Linear(6, 4)),
        older_weight_norm,
        lambda: nn.utils.spectral_norm(nn.Linear(6, 4)),
        pruned_twice,
    ],
    ids=["plain", "weight_norm", "orthogonal", "spectral_norm", "older weight_norm", "older spectral_norm", "pruned"],
)
def test_weight_is_the_one_that_the_next_evaluation_uses(make: Any) -> None:
    layer = after_a_step(make())
    read = effective.weight(layer, "weight")
    layer.eval()
    with torch.no_grad():
        used = layer(torch.eye(6)) - layer(torch.zeros(1, 6))  # x W' + b - b
    assert read is not None
    torch.testing.assert_close(read.T, used)


def test_reading_leaves_no_trace() -> None:
    layer = nn.Linear(6, 4)
    nn.utils.parametrize.register_parametrization(layer, "weight", Restless())
    restless: Any = layer.parametrizations["weight"][0]  # type: ignore[index]
    frozen: Any = layer.parametrizations["weight"]  # type: ignore[index]
    layer.train()
    frozen.eval()
    before = restless.count.clone(), restless.calls, torch.get_rng_state(), random.getstate()
    restless.train()
    effective.weight(layer, "weight")
    assert torch.equal(restless.count, before[0])
    assert restless.calls == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert random.getstate() == before[3]
    assert [layer.training, frozen.training, restless.training] == [True, False, True]
    assert layer.parametrizations["weight"].original.grad is None  # type: ignore[index,union-attr]
