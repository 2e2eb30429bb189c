"""A row of the table of metrics says all that tables, maps and summaries need."""

from __future__ import annotations

from typing import get_args

from lightning_ww.weights.analysis import LEVERS
from lightning_ww.weights.metric import Need
from lightning_ww.weights.metrics import TABLE


def test_each_input_that_is_computed_on_request_has_its_lever_and_a_metric() -> None:
    needed = {need for metric in TABLE.values() for need in metric.needs}
    assert needed == set(get_args(Need)) == set(LEVERS)
