"""What is found by the operators besides the spectrum, and where there is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from lightning_ww.callbacks._curvature.matrices import Matrices
from lightning_ww.curvature import GGNOperator, HessianOperator, batch_noise


def matrices(operator: Any, sizes: list[int | None], names: list[str]) -> Matrices:
    loss: Any = SimpleNamespace(batches=[SimpleNamespace(size=size) for size in sizes])
    return Matrices(operator, operator, [], (), None, loss, names)


def test_noise_needs_several_batches_with_gradients_and_one_size_for_samples() -> None:
    w = torch.ones(3, requires_grad=True)
    losses = [(1.0, lambda k=k: (w**2).sum() * k) for k in (1.0, 2.0)]
    both = HessianOperator(losses, [w])
    found = matrices(both, [8, 8], ["w"]).noise(0)
    assert found == batch_noise(both, 8, seed=0)
    unequal = matrices(both, [8, 4], ["w"]).noise(0)
    assert unequal is not None
    assert unequal.sample_variance is None
    assert matrices(HessianOperator(losses[:1], [w]), [8], ["w"]).noise(0) is None
    ggn = GGNOperator([(1.0, lambda: w * 2)], [lambda z: z.square().sum()], [w])
    assert matrices(ggn, [8, 8], ["w"]).noise(0) is None


def test_blocks_that_the_loss_does_not_reach_are_left_out() -> None:
    a, b = (torch.ones(3, requires_grad=True) for _ in range(2))
    operator = HessianOperator(lambda: (a**4).sum() + (b**2).sum(), [a, b])
    found = matrices(operator, [None], ["a.weight", "b.weight"]).blocks(["a.*", "c.*", "b.*"], 3, 0)
    assert [block.name for block in found] == ["a", "b"]
    assert [round(block.numbers["sharpness"], 3) for block in found] == [12, 2]
