"""Which parameters are differentiated by, and that some of them give a diagonal block of the whole matrix."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_ww.curvature import HessianOperator, select_parameters


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def test_frozen_and_tied_parameters_are_left_out() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    model["c"].requires_grad_(False)
    assert list(select_parameters(model)) == ["a.weight", "a.bias", "b.bias"]
    assert list(select_parameters(model, ["*.bias", "a.*"])) == ["a.weight", "a.bias", "b.bias"]


def test_names_are_the_users_where_a_module_is_compiled() -> None:
    model = nn.ModuleDict({"head": torch.compile(nn.Linear(2, 2))})  # type: ignore[dict-item]
    assert list(select_parameters(model, "head.weight")) == ["head._orig_mod.weight"]


def test_a_block_is_that_of_the_dense_hessian() -> None:
    model = net()
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3

    def loss() -> torch.Tensor:
        return functional.cross_entropy(model(x), y)

    names = list(select_parameters(model))
    sizes = [p.numel() for p in model.parameters()]
    whole = HessianOperator(loss, list(model.parameters())).to_dense()
    block = HessianOperator(loss, list(select_parameters(model, "2.*").values())).to_dense()
    begin = sum(sizes[: names.index("2.weight")])
    torch.testing.assert_close(block, whole[begin:, begin:], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("model", "params", "message"),
    [
        (
            net(),
            ["0.*", "nothing"],
            "`f(params='nothing')` matches no trainable parameter. This model has: `0.weight`, `0.bias`, `2.weight`, "
            "`2.bias`.",
        ),
        (net(), [], "`f(params=[])`: it is empty. Leave it out, or pass `None`, for all."),
        (nn.ReLU(), None, "`f`: no parameter of this ReLU requires a gradient."),
    ],
)
def test_bad_arguments(model: nn.Module, params: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        select_parameters(model, params, call="f")
