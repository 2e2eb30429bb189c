"""The table of gradients."""

from __future__ import annotations

from lightning_ww.callbacks._gradients.table import gradient_table
from lightning_ww.gradients import GradientReport, LayerGradients
from lightning_ww.gradients.layers import SkippedLayerGradients


def test_it_has_numbers_flags_reasons_events_and_what_is_left_out() -> None:
    layers = (
        LayerGradients(name="a", kind="Linear", num_elements=4, norm=0.5),
        LayerGradients(name="b", kind="Linear", num_elements=4, reasons={"norm": "no gradient has reached it"}),
    )
    report = GradientReport(layers, (SkippedLayerGradients("c", "frozen", "nothing in this layer is trained"),))
    said = gradient_table(report, {"vanishing_gradients": ["a"]}, ["early", "late"])
    rows = said.splitlines()
    assert any("`a`" in row and "0.5" in row and "vanishing_gradients" in row for row in rows)
    assert any("`b`" in row and "no gradient has reached it" in row for row in rows)
    assert any("`c`" in row and "frozen" in row for row in rows)
    assert said.index("- late") < said.index("- early")
