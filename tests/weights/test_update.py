"""Updates, against dense singular values, and where there are none."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ww import analyze
from lightning_ww.weights.update import update_since


@pytest.mark.parametrize("shape", [(1, 40, 30), (9, 20, 12), (1, 200, 150), (2, 90, 130), (1, 1, 30)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-30])
def test_both_numbers_are_those_of_dense_singular_values(shape: tuple[int, ...], dtype: Any, size: float) -> None:
    random = np.random.default_rng(sum(shape))
    before = (0.0 if size < 1e-20 else 1.0) * random.standard_normal(shape).astype(dtype)
    slices = (before + size * random.standard_normal(shape)).astype(dtype)
    found = update_since(slices, before)
    moved = slices.astype(np.float64) - before
    singular = np.linalg.svd(moved, compute_uv=False)
    assert found.update_relative == pytest.approx(
        np.linalg.norm(moved) / np.linalg.norm(slices.astype(float)), rel=1e-6
    )
    assert found.update_stable_rank == pytest.approx((singular**2).sum() / singular.max() ** 2, rel=1e-9)


def test_an_update_of_rank_one_has_a_stable_rank_of_one() -> None:
    before = np.random.default_rng(0).standard_normal((1, 300, 200))
    found = update_since(before + 1e-3 * np.outer(np.arange(300), np.ones(200)), before)
    assert found.update_stable_rank == pytest.approx(1, abs=1e-9)


def test_a_model_compares_with_an_earlier_model_or_its_state() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 48))
    before = copy.deepcopy(model)
    with torch.no_grad():
        model[0].weight += 0.1
    for previous in (before, before.state_dict()):
        first, second = analyze(model, previous=previous).layers
        moved = np.float32(0.1) * (64 * 32) ** 0.5
        assert first.update_relative == pytest.approx(moved / float(model[0].weight.detach().norm()), rel=1e-5)
        assert first.update_stable_rank == pytest.approx(1, abs=1e-5)
        assert (second.update_relative, second.update_stable_rank) == (None, None)
        assert second.reasons["update_stable_rank"] == "the weight did not move"
    assert analyze(model).layers[0].reasons["update_relative"] == "no earlier weights were given (`previous=`)"


@pytest.mark.parametrize("options", [{"split": "*"}, {"stacked": "each"}])
def test_layers_that_are_parts_of_a_weight_are_found_in_an_earlier_model(options: dict[str, Any]) -> None:
    model = nn.ParameterDict({"a": torch.randn((48, 16) if "split" in options else (3, 16, 20))})
    before = copy.deepcopy(model)
    with torch.no_grad():
        model["a"].add_(0.1 * torch.randn_like(model["a"]))
    report = analyze(model, previous=before, initial=before, **options)
    assert len(report.layers) == 3
    for layer in report.layers:
        assert layer.update_relative is not None
        assert layer.distance_from_init is not None


def test_a_weight_that_has_become_zero_has_no_relative_update() -> None:
    model, before = nn.Linear(32, 32), nn.Linear(32, 32)
    nn.init.zeros_(model.weight)
    layer = analyze(model, previous=before).layers[0]
    assert layer.update_relative is None
    assert layer.reasons["update_relative"] == "the weight is zero"
    assert layer.update_stable_rank is not None


def test_an_earlier_weight_of_another_shape_is_a_reason() -> None:
    layer = analyze(nn.Linear(32, 32), previous=nn.Linear(32, 24)).layers[0]
    assert layer.reasons["update_relative"] == "the earlier weight has slices of shape (1, 24, 32)"


def test_something_else_in_place_of_the_earlier_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"analyze\(previous"):
        analyze(nn.Linear(32, 32), previous=3)  # type: ignore[arg-type]


def test_an_earlier_weight_that_is_not_finite_costs_only_the_updates() -> None:
    model, before = nn.Linear(32, 32), nn.Linear(32, 32)
    with torch.no_grad():
        before.weight[0, 0] = float("nan")
    layer = analyze(model, previous=before).layers[0]
    assert layer.alpha is not None
    assert layer.reasons["update_relative"] == "the earlier weight was not finite"
