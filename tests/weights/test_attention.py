"""The sizes of attention's logits, against dense products of each head's own rows; and which modules are recognized."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ww import analyze
from lightning_ww.weights.attention import Heads


def dense(q: torch.Tensor, k: torch.Tensor, heads: int, key_heads: int | None = None) -> list[float]:
    """The largest singular value of each head's ``W_qᵀ W_k``, as a matrix of the model's width."""
    q, k = q.detach().double(), k.detach().double()
    size = q.shape[0] // heads
    shared = heads // (key_heads or heads)
    return [
        float(torch.linalg.svdvals(q[i * size : (i + 1) * size].T @ k[j * size : (j + 1) * size])[0])
        for i, j in ((i, i // shared) for i in range(heads))
    ]


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (8, 1), (1, 1)])
def test_each_head_has_the_largest_singular_value_of_its_product(heads: int, key_heads: int) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(heads * 8, 50), torch.randn(key_heads * 8, 50)
    found = Heads(k, heads).scales(q.numpy())
    assert found.tolist() == pytest.approx(dense(q, k, heads, key_heads), rel=1e-10)
    turned = Heads(k, heads, is_transposed=True).scales(q.T.numpy())
    assert turned.tolist() == pytest.approx(found.tolist(), rel=1e-12)
    assert Heads(torch.zeros_like(k), heads).scales(q.numpy()).max() == 0


class Grouped(nn.Module):
    """Queries in eight heads, keys in two, as Llama has them."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(64, 64, bias=False), nn.Linear(64, 16, bias=False)
        self.v_proj = nn.Linear(64, 16, bias=False)
        self.head_dim = 8


class Bert(nn.Module):
    """Names as BERT's, with the number of heads in a configuration around it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": nn.ModuleDict({"query": nn.Linear(32, 32), "key": nn.Linear(32, 32)})})
        self.config: Any = SimpleNamespace(num_attention_heads=4)


def test_attention_of_several_kinds_is_recognized() -> None:
    torch.manual_seed(0)
    model: Any = nn.ModuleDict(
        {"torch": nn.MultiheadAttention(32, 4), "grouped": Grouped(), "bert": Bert(), "other": nn.Linear(32, 32)}
    )
    report = analyze(model, attention=True)
    q, k, _ = model["torch"].in_proj_weight.chunk(3)
    grouped, bert = model["grouped"], model["bert"].attention["self"]
    expected = {
        "torch.q_proj": max(dense(q, k, 4)),
        "grouped.q_proj": max(dense(grouped.q_proj.weight, grouped.k_proj.weight, 8, 2)),
        "bert.attention.self.query": max(dense(bert["query"].weight, bert["key"].weight, 4)),
    }
    for layer in report.layers:
        if layer.name in expected:
            assert layer.attention_logit_scale == pytest.approx(expected[layer.name], rel=1e-6)
        else:
            assert layer.attention_logit_scale is None
            assert "no layer of queries" in layer.reasons["attention_logit_scale"]
    assert analyze(model).layers[0].reasons["attention_logit_scale"] == "not asked for (`attention=True`)"


@pytest.mark.parametrize("is_transposed", [False, True])
def test_fused_weights_are_recognized_where_they_are_split(is_transposed: bool) -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads = 4
            self.qkv = nn.Module()
            self.qkv.weight = nn.Parameter(torch.randn((32, 96) if is_transposed else (96, 32)))

    torch.manual_seed(0)
    model: Any = Fused()
    (q, k, _) = (model.qkv.weight.T if is_transposed else model.qkv.weight).chunk(3)
    found = analyze(model, attention=True, split="*qkv")["qkv.q"]
    assert found.attention_logit_scale == pytest.approx(max(dense(q, k, 4)), rel=1e-6)


def test_what_does_not_fit_together_has_no_value() -> None:
    odd: Any = nn.ModuleDict({"q_proj": nn.Linear(32, 30), "k_proj": nn.Linear(32, 30)})
    odd.num_heads = 4
    unknown = nn.ModuleDict({"q_proj": nn.Linear(32, 32), "k_proj": nn.Linear(32, 32)})
    widths: Any = nn.ModuleDict({"q_proj": nn.Linear(32, 32), "k_proj": nn.Linear(16, 32)})
    widths.num_heads = 4
    for model in (odd, unknown, widths):
        assert analyze(model, attention=True)["q_proj"].attention_logit_scale is None


def test_any_scale_of_weights_is_right() -> None:
    torch.manual_seed(0)
    model: Any = nn.MultiheadAttention(32, 4).double()
    plain = analyze(model, attention=True)["q_proj"].attention_logit_scale
    with torch.no_grad():
        model.in_proj_weight.mul_(1e-70)
    tiny = analyze(model, attention=True)["q_proj"].attention_logit_scale
    assert plain is not None
    assert tiny is not None
    assert np.isclose(tiny / 1e-140, plain, rtol=1e-6)
