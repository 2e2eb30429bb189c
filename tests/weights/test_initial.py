"""The weights that a model began with, from a module or its state."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from lightning_ww import analyze


def test_distance_of_a_pruned_layer_from_a_state_dict() -> None:
    pruned: Any = nn.Linear(20, 16)
    prune.l1_unstructured(pruned, "weight", 0.3)  # type: ignore[no-untyped-call]
    before = {f"module.layer.{key}": value.clone() for key, value in pruned.state_dict().items()}
    pruned.weight_orig.data += 0.1
    expected = 0.1 * float(pruned.weight_mask.sum()) ** 0.5
    report = analyze(nn.ModuleDict({"layer": pruned}), initial=before)
    assert report["layer"].distance_from_init == pytest.approx(expected, rel=1e-5)


def moved(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return other


@pytest.mark.parametrize("as_state", [False, True])
def test_distance_from_a_module_or_its_state_dict(as_state: bool) -> None:
    model = nn.ModuleDict(
        {
            "linear": nn.Linear(20, 16),
            "conv": nn.Conv2d(8, 8, 3),
            "attention": nn.MultiheadAttention(16, 2),
            "lstm": nn.LSTM(16, 16),
            "normed": parametrizations.weight_norm(nn.Linear(20, 16)),
        }
    )
    before: Any = copy.deepcopy(model)
    now: Any = moved(model)
    report = analyze(now, initial=before.state_dict() if as_state else before)
    for name in ("linear", "conv"):
        w, w0 = now[name].weight, before[name].weight
        assert report[name].distance_from_init == pytest.approx(float((w - w0).detach().norm()), rel=1e-5)
    w, w0 = (m["attention"].in_proj_weight.detach()[16:32] for m in (now, before))
    assert report["attention.k_proj"].distance_from_init == pytest.approx(float((w - w0).detach().norm()), rel=1e-5)
    w, w0 = (m["lstm"].weight_hh_l0.detach()[:16] for m in (now, before))
    assert report["lstm.weight_hh_l0.i"].distance_from_init == pytest.approx(float((w - w0).detach().norm()), rel=1e-5)
    w, w0 = now["normed"].weight.detach(), before["normed"].weight.detach()
    assert report["normed"].distance_from_init == pytest.approx(float((w - w0).detach().norm()), rel=1e-5)


def test_a_beginning_of_another_shape_or_without_the_layer_has_its_reason() -> None:
    now = nn.ModuleDict({"a": nn.Linear(20, 16), "b": nn.Linear(20, 16), "c": nn.Linear(20, 16)})
    before = nn.ModuleDict({"a": nn.Linear(20, 16), "b": nn.Linear(24, 16)})
    report = analyze(now, initial=before)
    assert report["a"].distance_from_init is not None
    assert report["b"].reasons["distance_from_init"] == "the initial weight has slices of shape (1, 16, 24)"
    assert report["c"].reasons["distance_from_init"] == "the initial weights hold no such layer"


def test_a_beginning_of_something_else_is_an_error() -> None:
    model = nn.ModuleDict({"a": nn.Linear(20, 16)})
    message = "`analyze(initial=...)` holds none of the layers of this model: `a`."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        analyze(model, initial={"encoder.weight": torch.zeros(16, 20)})
    message = "`analyze(initial=...)`: expected a module or its state_dict(), but got a `int`."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        analyze(model, initial=3)  # type: ignore[arg-type]
