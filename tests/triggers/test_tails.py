"""The layers whose alpha is judged."""

from __future__ import annotations

from helpers.reports import layer, report

from lightning_ww import History, Measurement, Moment, OverTrained
from lightning_ww.triggers.tails import middle_layers


def test_layers_in_the_middle_with_fifty_eigenvalues_over_all_slices_are_judged() -> None:
    found = report(*(layer(name, M=25, slices=slices) for name, slices in (("a", 9), ("b", 2), ("c", 1), ("d", 9))))
    history = History[Measurement]().up_to(Measurement.of(Moment(0, 0, 0, 0, True), found), found)
    assert middle_layers(OverTrained(), history) == ["b"]
    assert middle_layers(OverTrained(), History()) == []
