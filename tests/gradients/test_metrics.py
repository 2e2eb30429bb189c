"""The table of the numbers of gradients."""

from __future__ import annotations

from lightning_ww.gradients import GRADIENT_METRICS, LayerGradients
from lightning_ww.gradients.metrics import KEY_GRADIENT_METRICS


def test_each_number_is_an_attribute_with_a_meaning() -> None:
    layer = LayerGradients(name="a", kind="Linear", num_elements=1)
    assert all(layer.metric(name) is None for name in GRADIENT_METRICS)
    assert all(metric.meaning for metric in GRADIENT_METRICS.values())
    assert set(KEY_GRADIENT_METRICS) <= set(GRADIENT_METRICS)
