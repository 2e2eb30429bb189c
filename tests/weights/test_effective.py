"""The weight that the next forward pass uses, against the one that it did use; and nothing touched by reading it."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from helpers.networks import Restless
from torch import nn
from torch.nn.utils import parametrizations, prune

from lightning_ww import analyze
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


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_codes_of_torchao_are_read_as_it_computes_with_them() -> None:
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    for config, error in ((Int8WeightOnlyConfig(), 0.005), (Float8WeightOnlyConfig(), 0.05)):
        torch.manual_seed(0)
        layer = nn.Linear(64, 48, bias=False)
        model, known = nn.Sequential(layer), layer.weight.detach().clone()
        quantize_(model, config)
        read = analyze(model)["0"]
        used = model(torch.eye(64)).T.detach()
        assert read.sv_max == pytest.approx(float(torch.linalg.matrix_norm(used.double(), 2)), rel=1e-3)
        assert read.sv_max == pytest.approx(float(torch.linalg.matrix_norm(known.double(), 2)), rel=error)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [8, 4])
def test_codes_of_bitsandbytes_are_read_as_it_computes_with_them(bits: int) -> None:
    import bitsandbytes

    torch.manual_seed(0)
    kinds = {8: bitsandbytes.nn.Linear8bitLt, 4: bitsandbytes.nn.Linear4bit}
    options: Any = {8: {"has_fp16_weights": False}, 4: {"quant_type": "nf4"}}[bits]
    plain = nn.Linear(64, 48, bias=False)
    layer = kinds[bits](64, 48, bias=False, **options)
    layer.load_state_dict(plain.state_dict())
    model = nn.Sequential(layer).to("cpu")
    before = analyze(model)["0"].sv_max
    used = model(torch.eye(64)).T.detach()
    assert (
        before
        == analyze(model)["0"].sv_max
        == pytest.approx(float(torch.linalg.matrix_norm(used.double(), 2)), rel=0.01)
    )
    assert before == pytest.approx(float(torch.linalg.matrix_norm(plain.weight.detach().double(), 2)), rel=0.1)
