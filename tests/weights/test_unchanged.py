"""Layers that have not changed: recognized whatever changed, and reported as a new analysis would."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from helpers.references import counted_decompositions
from torch import nn

from lightning_ww.weights.analysis import measure, read
from lightning_ww.weights.ingredients import Request
from lightning_ww.weights.initial import snapshot
from lightning_ww.weights.layers import find_layers
from lightning_ww.weights.report import WeightReport
from lightning_ww.weights.shuffle import Shuffler
from lightning_ww.weights.unchanged import Unchanged

SHUFFLER = Shuffler()


def net() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(100, 90), nn.Conv2d(9, 70, 3), nn.Linear(80, 70, dtype=torch.bfloat16))


def report(model: nn.Module, initial: Any, unchanged: Unchanged | None) -> WeightReport:
    found, skipped = find_layers(model)
    weights = list(read(found, include_frozen=True, copies=True))
    return measure(weights, skipped, Request(SHUFFLER, "exact", initial, floors={}), unchanged=unchanged)


def same(one: WeightReport, other: WeightReport) -> bool:
    for a, b in zip(one.layers, other.layers, strict=True):
        for field in dataclasses.fields(a):
            x, y = getattr(a, field.name), getattr(b, field.name)
            if field.name == "spectrum":
                x, y = x.singular_values, y.singular_values
            if not (np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y):
                return False
    return True


def test_only_what_changed_is_decomposed_and_the_report_is_that_of_a_new_analysis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, unchanged = net(), Unchanged()
    initial = snapshot(find_layers(model)[0])
    report(model, initial, unchanged)
    calls = counted_decompositions(monkeypatch)
    again = report(model, initial, unchanged)
    assert calls == []
    assert same(again, report(model, initial, None))
    calls.clear()
    with torch.no_grad():
        model[0].weight[37, 41] += 1e-3  # one element, which is not among those that are looked at first
    changed = report(model, initial, unchanged)
    assert calls == [(90, 90)] * 2
    assert same(changed, report(model, initial, None))
    assert changed["0"].sv_max != again["0"].sv_max


def test_a_weight_that_comes_back_is_measured_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, unchanged = net(), Unchanged()
    before = copy.deepcopy(model.state_dict())
    report(model, None, unchanged)
    with torch.no_grad():
        model[0].weight *= 2
    report(model, None, unchanged)
    model.load_state_dict(before)
    calls = counted_decompositions(monkeypatch)
    report(model, None, unchanged)
    report(model, None, unchanged)  # seen for the first time since, with a fingerprint of a part alone
    report(model, None, unchanged)
    assert calls == [(90, 90)] * 4
    assert same(report(model, None, unchanged), report(model, None, None))


def test_another_request_is_another_report() -> None:
    model, unchanged = net(), Unchanged()
    assert report(model, None, unchanged)["0"].distance_from_init is None
    assert report(model, snapshot(find_layers(model)[0]), unchanged)["0"].distance_from_init == 0


def test_a_layer_that_is_frozen_meanwhile_is_said_to_be() -> None:
    model, unchanged = net(), Unchanged()
    assert not report(model, None, unchanged)["0"].is_frozen
    model[0].weight.requires_grad_(False)
    assert report(model, None, unchanged)["0"].is_frozen


def test_reports_do_not_go_into_a_pickle() -> None:
    model, unchanged = net(), Unchanged()
    report(model, None, unchanged)
    assert len(pickle.dumps(unchanged)) < 300
