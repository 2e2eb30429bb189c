"""The table of metrics: every row has its scale, meaning and reason."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from helpers.references import gaussian
from torch import nn

from lightning_ww import METRICS, analyze
from lightning_ww.callbacks import WeightSpectrumMonitor
from lightning_ww.callbacks._weights import levers as levers_of_monitor
from lightning_ww.drawing.scale import Scale
from lightning_ww.weights import analysis
from lightning_ww.weights.metric import Metric, Need
from lightning_ww.weights.metrics import TABLE


@pytest.mark.parametrize("metric", METRICS)
def test_a_color_bars_labels_stand_where_their_values_are_the_first_and_the_last_at_its_ends(metric: str) -> None:
    scale = TABLE[metric].scale
    places, texts = zip(*scale.ticks(), strict=True)
    assert (places[0], places[-1]) == (0, 1)
    assert (texts[0], texts[-1]) == (f"≤ {scale.low:.3g}", f"≥ {scale.high:.3g}")
    values = np.array([float(text.strip("≤≥ ")) for text in texts])
    np.testing.assert_allclose(scale.place(values), places, atol=1e-9)
    assert np.diff(places).min() >= 0.15  # so that they do not touch


def orthogonal(rows: int, cols: int) -> torch.Tensor:
    return torch.as_tensor(np.linalg.qr(gaussian(rows, cols))[0])


HARD: dict[str, torch.Tensor] = {
    "zero": torch.zeros(20, 16),
    "constant": torch.full((20, 16), 0.1),
    "rank one": torch.outer(torch.arange(1.0, 21.0), torch.arange(1.0, 17.0)),
    "orthogonal": orthogonal(20, 16),
    "a vector": torch.arange(1.0, 17.0)[None].expand(8, 16).clone(),
    "huge": 1e200 * torch.as_tensor(gaussian(20, 16)),
    "noise": torch.as_tensor(gaussian(20, 16)),
}


@pytest.mark.parametrize("too_large", [False, True])
@pytest.mark.parametrize("asked", [{}, {"shuffle": "off"}, {"mp_fit": True, "cka": True, "floor": True}])
@pytest.mark.parametrize("kind", HARD)
def test_a_number_that_is_missing_has_a_reason_in_words(
    kind: str, asked: dict[str, Any], too_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if too_large:
        monkeypatch.setattr("lightning_ww.weights.spectrum.MAX_EXACT", 15)
    layer = nn.Linear(1, 1)
    layer.weight = nn.Parameter(HARD[kind])
    initial = {"weight": torch.zeros_like(HARD[kind])} if "cka" in asked else None
    for measured in analyze(layer, initial=initial, **asked).layers:
        missing = {name for name in METRICS if measured.metric(name) is None}
        assert missing == set(measured.reasons)
        assert all(len(reason) > 5 for reason in measured.reasons.values()), measured.reasons


@pytest.mark.parametrize("metric", TABLE.values(), ids=lambda metric: metric.name)
def test_a_row_says_what_it_is_and_how_it_is_colored_and_stands_below_what_it_follows(metric: Metric) -> None:
    assert metric.meaning
    assert isinstance(metric.scale, Scale)
    assert metric.scale.low < metric.scale.high
    names = list(TABLE)
    if metric.follows is not None:
        assert names.index(metric.follows) < names.index(metric.name)


@pytest.mark.parametrize(
    ("levers", "call"), [(analysis.LEVERS, analyze), (levers_of_monitor.LEVERS, WeightSpectrumMonitor)]
)
def test_a_reasons_lever_is_an_argument_of_the_caller(levers: Mapping[str, str], call: Any) -> None:
    assert set(levers) == set(get_args(Need))
    known = set(inspect.signature(call).parameters)
    for need, reason in levers.items():
        named = set(re.findall(r"`(\w+)=", reason))
        assert named <= known, need


def test_the_page_of_the_docs_is_the_tables() -> None:
    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("write_metrics", root / "docs" / "write_metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (root / "docs" / "metrics.md").read_text(encoding="utf-8") == module.page()  # else: make docs
