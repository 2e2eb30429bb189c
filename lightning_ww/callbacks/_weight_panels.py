"""Which pictures of the weights are drawn when: heat-maps of all layers always, one layer's spectrum on occasion."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from lightning_ww.panels.canvas import to_image
from lightning_ww.panels.heat_map import MAX_ROWS, chosen, heat_map, most_columns
from lightning_ww.panels.layer import layer_figure
from lightning_ww.panels.scales import SCALES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lightning_ww.diagnosis import Diagnosis
    from lightning_ww.history import History, Measurement
    from lightning_ww.report import WeightReport

    Pixels = NDArray[np.uint8]

MOST_FIGURES = 3
"""Layers whose spectrum is drawn at one measurement without being asked for: a figure takes up to a third of a second."""

MOST_MAPS = 8
"""Metrics that have a heat-map: one of 150 layers takes up to a tenth of a second."""

FRAMES = "Framed: flagged for rank_collapse or correlation_trap."


class WeightPanels:
    """What was drawn, and what is still to be."""

    def __init__(self, layers: Sequence[str] | None, every: int, *, compare: bool) -> None:
        """``layers``: patterns of those whose spectrum is drawn at every so-manieth measurement."""
        self._patterns, self._every, self._compare = layers, every, compare
        self._waiting: list[str] = []  # flagged, and not drawn yet
        self._drawn_at: dict[str, int] = {}  # number of the measurement that a layer was drawn of

    def maps(self, history: History[Measurement]) -> dict[str, Pixels]:
        """``ww.maps/<metric>``: the whole history, a row for each layer."""
        past = [history[i] for i in chosen(len(history), most_columns())]
        names = list(dict.fromkeys(name for one in reversed(past) for name in one.layers))
        flagged = {name for one in past for layers in one.flags.values() for name in layers}
        keep = {names[i] for i in chosen(len(names), MAX_ROWS)} | (flagged if len(names) > MAX_ROWS else set())
        rows = [name for name in names if name in keep][: 2 * MAX_ROWS]
        flags = [{name for layers in one.flags.values() for name in layers} for one in past]
        framed = np.array([[name in at for at in flags] for name in rows])
        found = {}
        for metric in past[-1].metrics[:MOST_MAPS]:
            values = np.column_stack([_column(one, metric, rows) for one in past])
            title = f"{metric}, by layer and optimiser step"
            columns = [str(one.step) for one in past]
            note = FRAMES if framed.any() else ""
            found[f"ww.maps/{metric}"] = heat_map(
                title, rows, columns, values, SCALES[metric], framed=framed, note=note
            )
        return found

    def spectra(
        self, report: WeightReport, risen: Sequence[str], number: int, *, is_baseline: bool
    ) -> dict[str, Pixels]:
        """``ww.spectrum/<layer>`` of the layers whose turn it is: ``risen`` are those that have a new flag."""
        self._waiting += [name for name in risen if name not in self._waiting]
        due = self._named(report) if number % self._every == 0 or is_baseline else []
        extra = self._usual(report) if is_baseline else []
        return self._draw(report, number, due, [*self._waiting, *extra])

    def last(self, report: WeightReport, diagnosis: Diagnosis, number: int) -> dict[str, Pixels]:
        """The same at the end of training: the named, the flagged, and some others."""
        others = [*self._waiting, *diagnosis.flagged_layers, *self._usual(report)]
        return self._draw(report, number, self._named(report), others)

    def _named(self, report: WeightReport) -> list[str]:
        names = [layer.name for layer in report.layers]
        return [name for name in names if any(fnmatchcase(name, pattern) for pattern in self._patterns or ())]

    def _usual(self, report: WeightReport) -> list[str]:
        """Some layers, evenly by depth, where none was named."""
        names = [layer.name for layer in report.layers if layer.spectrum is not None]
        return [] if self._patterns else [names[i] for i in chosen(len(names), MOST_FIGURES)]

    def _draw(self, report: WeightReport, number: int, asked: list[str], others: list[str]) -> dict[str, Pixels]:
        drawn = {}
        few = [name for name in dict.fromkeys(others) if name not in asked][:MOST_FIGURES]
        layers = {layer.name: layer for layer in report.layers if layer.spectrum is not None}
        for name in (*asked, *few):
            self._waiting = [one for one in self._waiting if one != name]
            layer = layers.get(name)
            if layer is None or not layer.sv_max or self._drawn_at.get(name) == number:
                continue
            drawn[f"ww.spectrum/{name}"] = to_image(layer_figure(layer, compare=self._compare))
            self._drawn_at[name] = number
        return drawn


def _column(measurement: Measurement, metric: str, rows: Sequence[str]) -> NDArray[np.float64]:
    """One metric of these layers, NaN where there is none."""
    if metric not in measurement.metrics:
        return np.full(len(rows), np.nan)
    values = measurement.values[:, measurement.metrics.index(metric)].tolist()
    known = dict(zip(measurement.layers, values, strict=True))
    return np.array([known.get(name, np.nan) for name in rows])
