"""The reports on gradients as a user reads them."""

from __future__ import annotations

import pytest

from lightning_ww.gradients import GRADIENT_METRICS, GradientReport, LayerGradients


def test_layers_are_found_by_name_and_listed_in_a_table() -> None:
    report = GradientReport(tuple(LayerGradients(name=name, kind="Linear", num_elements=4, norm=1.0) for name in "ab"))
    assert report["b"].metric("norm") == 1.0
    with pytest.raises(KeyError, match=r"no layer `c`; there are: `a`, `b`"):
        report["c"]
    frame = report.to_pandas()
    assert list(frame["name"]) == ["a", "b"]
    assert set(GRADIENT_METRICS) <= set(frame.columns)
