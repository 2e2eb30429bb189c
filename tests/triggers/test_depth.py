"""The gradients of the layers after a layer."""

from __future__ import annotations

from lightning_ww import History, Measurement, Moment
from lightning_ww.gradients import GradientReport, LayerGradients
from lightning_ww.triggers.depth import norms_after


def test_the_order_is_that_of_depth_not_that_of_the_model() -> None:
    depths = {"head": 2, "first": 0, "middle": 1}
    layers = [
        LayerGradients(name=name, kind="Linear", num_elements=1, depth=depth, norm=float(depth))
        for name, depth in depths.items()
    ]
    report = GradientReport((*layers, LayerGradients(name="unused", kind="Linear", num_elements=1)))
    history = History[Measurement]()
    history = history.up_to(Measurement.of(Moment(0, 0, 0, 0, True), report, ["norm"]), report)
    assert norms_after(history, "first") == [2.0, 1.0]
    assert norms_after(history, "head") == []
    assert norms_after(history, "unused") == norms_after(history, "none") == []
