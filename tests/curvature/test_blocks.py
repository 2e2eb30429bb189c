"""The spectra of diagonal blocks, against the dense matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_ww.curvature import HessianOperator, block_spectra
from lightning_ww.curvature.blocks import BlockOperator, name_of


def problem() -> tuple[nn.Module, Any, HessianOperator]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randint(2, (20,))

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(model(x), y)

    return model, loss, HessianOperator(loss, list(model.parameters()))


PLACES = {
    "0.*": range(16),
    "2.*": range(16, 36),
    "4.bias": range(44, 46),
    "*.bias": [*range(12, 16), *range(32, 36), 44, 45],
}


@pytest.mark.parametrize("pattern", PLACES)
def test_a_blocks_spectrum_is_that_of_the_dense_matrix(pattern: str) -> None:
    model, _, whole = problem()
    names = [name for name, _ in model.named_parameters()]
    places = torch.tensor(list(PLACES[pattern]))
    dense = whole.to_dense()[places][:, places]
    (block,) = block_spectra(whole, names, pattern, num_steps=len(places))
    values = torch.linalg.eigvalsh(dense)
    assert block.density.dim == len(places)
    assert block.numbers["sharpness"] == pytest.approx(float(values[-1]), rel=1e-8)
    assert block.density.lambda_min == pytest.approx(float(values[0]), rel=1e-6)
    traces = torch.tensor(
        [
            block_spectra(whole, names, pattern, num_steps=len(places), seed=seed)[0].numbers["trace"]
            for seed in range(30)
        ]
    )
    assert abs(float(traces.mean() - dense.trace())) < 4 * float(traces.std()) / 30**0.5 + 1e-6


def test_products_are_those_of_the_dense_block() -> None:
    model, _, whole = problem()
    names = [name for name, _ in model.named_parameters()]
    block = BlockOperator(whole, [name.endswith("bias") for name in names])
    places = torch.tensor(PLACES["*.bias"])
    assert torch.allclose(block.to_dense(), whole.to_dense()[places][:, places], atol=1e-12)
    assert [p.numel() for p in block.params] == [4, 4, 2]


def test_names_in_keys_have_no_stars_and_unknown_ones_are_refused() -> None:
    assert [name_of(pattern) for pattern in ("encoder.*", "head", "*.bias", "*")] == ["encoder", "head", "bias", "*"]
    model, _, whole = problem()
    names = [name for name, _ in model.named_parameters()]
    with pytest.raises(ValueError, match=r"`block_spectra\(blocks='x'\)` matches no parameter"):
        block_spectra(whole, names, "x")
