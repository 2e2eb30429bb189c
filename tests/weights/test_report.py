"""Tables and summaries of a report, on numbers worked out by hand."""

from __future__ import annotations

import builtins
import re
from typing import Any

import numpy as np
import pytest
from helpers.reports import layer
from torch import nn

from lightning_ww import METRICS, WeightReport, analyze
from lightning_ww._errors import UnknownLayerError

REPORT = WeightReport(
    layers=(
        layer("a", alpha=2.0, sv_min=0.5, rank_deficit=0.1, stable_rank=4.0, rand_distance=0.1),
        layer("b", alpha=4.0, sv_min=0.2, rank_deficit=0.3, stable_rank=8.0),
        layer("c", sv_min=0.9, stable_rank=None),
        layer("embedding", is_embedding=True, alpha=100.0, sv_min=1e-9, rank_deficit=1.0),
    ),
    skipped=(),
    seconds=0.1,
)


def test_summary_is_over_fitted_values_of_all_layers_but_embeddings() -> None:
    assert REPORT.summary == {
        "alpha": 3.0,
        "rand_distance": 0.1,
        "stable_rank": 6.0,
        "sv_min": 0.2,
        "rank_deficit": 0.3,
    }


def test_quantiles_equal_numpys() -> None:
    assert REPORT.quantiles["alpha_q10"] == pytest.approx(np.percentile([2, 4], 10))
    assert REPORT.quantiles["stable_rank_q90"] == pytest.approx(np.percentile([4, 8], 90))
    assert sorted(REPORT.quantiles) == sorted(
        f"{name}_q{q}" for name in ("alpha", "rand_distance", "stable_rank") for q in (10, 50, 90)
    )


def test_layers_are_found_by_name() -> None:
    assert REPORT["b"].alpha == 4
    message = "no layer 'd'; this report has: a, b, c, embedding"
    with pytest.raises(UnknownLayerError, match=f"^{re.escape(message)}$"):
        REPORT["d"]


def test_metrics_are_those_of_the_record() -> None:
    assert METRICS[0] == "alpha"
    assert METRICS[-1] == "attention_logit_scale"
    assert all(hasattr(REPORT["a"], name) for name in METRICS)


def test_to_pandas_has_a_row_a_layer_and_a_column_a_metric() -> None:
    table = REPORT.to_pandas()
    assert list(table["name"]) == ["a", "b", "c", "embedding"]
    assert set(METRICS) <= set(table.columns)
    assert table["alpha"].isna().tolist() == [False, False, True, False]


def test_to_pandas_of_a_report_without_layers_keeps_its_columns() -> None:
    assert "alpha" in WeightReport((), (), 0.0).to_pandas().columns
    assert WeightReport((), (), 0.0).summary == {}


def test_to_pandas_like_weightwatcher_of_odd_layers() -> None:
    zero = nn.Linear(20, 16)
    zero.weight.data.zero_()
    row = analyze(nn.ModuleDict({"zero": zero})).to_pandas(like="weightwatcher").iloc[0]
    assert (row["status"], row["alpha"], row["warning"]) == ("failed", -1, "over-trained")  # its own words
    assert row["matrix_rank"] == 0


def test_to_pandas_like_something_else_is_an_error() -> None:
    message = "`to_pandas(like='ww')`: expected 'weightwatcher' or `None`."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        REPORT.to_pandas(like="ww")  # type: ignore[arg-type]


def test_without_pandas_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_pandas(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    message = "needs pandas: `pip install lightning-ww[pandas]` or `pip install pandas`."
    with pytest.raises(ModuleNotFoundError, match=re.escape(message)):
        REPORT.to_pandas()
