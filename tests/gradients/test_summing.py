"""The numbers of a layer from those of its parameters, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_ww.gradients.layers import layers_of
from lightning_ww.gradients.summing import layer_of, numbers_of


def test_norms_add_by_squares_and_shares_by_elements() -> None:
    rows = [
        {"norm": 3.0, "clipped_norm": 1.5, "update_norm": 0.3, "stepped_norm": 6.0, "zeros": 2.0, "bad": 1.0},
        {"norm": 4.0, "clipped_norm": 2.0, "update_norm": 0.4, "stepped_norm": 8.0, "zeros": 1.0, "bad": 0.0},
        {"weight_norm": 5.0, "weight_max": 2.0},
    ]
    found = numbers_of(rows, [8, 2, 100])
    assert found["norm"] == 5.0
    assert found["clip_factor"] == pytest.approx(0.5)
    assert found["update_ratio"] == pytest.approx(0.05)  # of what was stepped, not of all
    assert found["zero_share"] == pytest.approx(0.3)
    assert found["nonfinite_share"] == pytest.approx(0.1)
    assert (found["weight_norm"], found["weight_max"]) == (5.0, 2.0)
    assert numbers_of([], [])["norm"] is None


def test_each_missing_number_has_a_reason() -> None:
    ((layer,), _) = layers_of(nn.Linear(2, 2, bias=False))
    row = {"weight_norm": 1.0, "weight_max": 1.0}
    none = layer_of(layer, [row], float("nan"), None, has_step=False)
    assert {none.reasons[name] for name in ("norm", "update_ratio")} == {
        "no optimizer step has been made since the last measurement"
    }
    lost = layer_of(layer, [row | {"norm": float("inf")}], -1.0, 0, has_step=True)
    assert lost.norm is None
    assert lost.reasons["norm"] == "not finite (inf)"
    assert "finite gradient" in lost.reasons["highest_norm"]
    assert lost.depth == 0
    assert torch.tensor(lost.weight_norm).item() == 1.0
