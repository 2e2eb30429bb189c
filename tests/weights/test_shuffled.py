"""A shuffle's spectrum is made in the way that was asked for, and that the report names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ww.weights.analysis import measure, read
from lightning_ww.weights.elements import element_statistics
from lightning_ww.weights.ingredients import Request
from lightning_ww.weights.kept_shuffle import KeptShuffle
from lightning_ww.weights.layers import find_layers
from lightning_ww.weights.report import LayerReport
from lightning_ww.weights.shuffle import Shuffler
from lightning_ww.weights.shuffled import Keeping, Shuffled


def layer(model: nn.Module, kept: dict[str, KeptShuffle] | None, how: Any = "auto", seed: int = 0) -> LayerReport:
    found, skipped = find_layers(model)
    request = Request(Shuffler(seed), how, floors={}, kept=kept)
    (report,) = measure(read(found, include_frozen=True), skipped, request).layers
    return report


def linear(outputs: int = 140) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(150, outputs)


def moved(model: nn.Linear, share: float) -> nn.Linear:
    with torch.no_grad():
        model.weight.add_(share * model.weight.std() * torch.randn(model.weight.shape, generator=torch.manual_seed(1)))
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_layer_that_moves_little_keeps_its_shuffle_and_one_that_moves_much_draws_anew(dtype: torch.dtype) -> None:
    model: Any = linear().to(dtype)
    first = layer(model, {})
    assert first.kept_shuffle is not None
    kept = {"weight": first.kept_shuffle}
    again = layer(model, kept)
    assert (first.shuffle, again.shuffle) == ("exact", "exact")  # the very shuffle of these elements
    assert again.rand_distance == first.rand_distance
    second = layer(moved(model, 0.03), kept)
    assert second.shuffle == "kept"
    assert second.kept_shuffle is first.kept_shuffle
    assert second.rand_distance == pytest.approx(layer(model, None, "exact").rand_distance, rel=0.1)
    assert second.shuffled is not None
    assert np.square(second.shuffled).sum() == pytest.approx(
        float(model.weight.detach().double().square().sum()), rel=1e-6
    )
    third = layer(moved(model, 1.0), kept)
    assert third.shuffle == "exact"
    assert third.kept_shuffle is not first.kept_shuffle


@pytest.mark.parametrize(
    ("model", "how", "kept"),
    [(linear(), "exact", {}), (linear(), "auto", None), (linear(100), "auto", {}), (nn.Linear(300, 300), "auto", {})],
    ids=["exact", "nothing is kept", "small", "predicted"],
)
def test_no_shuffle_is_kept(model: nn.Module, how: Any, kept: Any) -> None:
    assert layer(model, kept, how).kept_shuffle is None


def test_a_shuffle_of_another_seed_is_not_used() -> None:
    kept = layer(linear(), {}).kept_shuffle
    assert kept is not None
    assert layer(moved(linear(), 0.01), {"weight": kept}, seed=1).shuffle == "exact"


def test_each_slice_of_a_convolution_is_compared() -> None:
    torch.manual_seed(0)
    model: Any = nn.Conv1d(140, 150, 3)
    first = layer(model, {})
    assert first.kept_shuffle is not None
    with torch.no_grad():
        model.weight[:, :, 1] += 2 * model.weight[:, :, 1].std() * torch.randn(150, 140)
    assert layer(model, {"weight": first.kept_shuffle}).shuffle == "exact"


def test_a_kept_shuffle_is_that_of_the_record() -> None:
    slices = np.random.default_rng(0).standard_t(5, (1, 150, 140)).astype(np.float32)
    statistics = element_statistics(slices)
    first = Shuffled(slices, statistics, Shuffler(0), "auto", Keeping(None))
    kept = first.to_keep
    assert kept is not None
    later = (slices * np.float32(1.01)).astype(np.float32)
    second = Shuffled(later, element_statistics(later), Shuffler(0), "auto", Keeping(kept))
    assert second.way == "kept"
    np.testing.assert_allclose(second.draws, 1.01 * first.draws, rtol=1e-6)
    np.testing.assert_allclose(second.largest_centered, 1.01 * first.largest_centered, rtol=1e-6)
    assert second.to_keep is kept
