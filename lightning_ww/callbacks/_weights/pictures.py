"""Which pictures of the weights are drawn when: maps of all layers as the history grows, spectra on occasion."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lightning_ww.callbacks._monitor.schedule import is_redrawn
from lightning_ww.drawing.canvas import picture
from lightning_ww.drawing.heat_map import MAX_ROWS, chosen, heat_map, most_columns
from lightning_ww.drawing.labels import labels
from lightning_ww.weights.metrics import TABLE
from lightning_ww.weights.plots.layer import layer_figure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from lightning_ww.history import History, Measurement
    from lightning_ww.triggers.diagnosis import Diagnosis
    from lightning_ww.weights.report import LayerReport, WeightReport

    Pixels = NDArray[np.uint8]
    Draw = Callable[[], Pixels]

MOST_FIGURES = 3
"""Layers whose spectrum is drawn at one measurement without being asked for (`benchmarks/panels.md`)."""

MOST_MAPS = 8
"""Heat-maps that are drawn at one measurement; of more metrics, these are the next ones in turn."""

FRAMES = "Framed: flagged."


class WeightPanels:
    """What was drawn, and what is still to be."""

    def __init__(self, layers: Sequence[str] | None, every: int, *, compare: bool) -> None:
        """``layers``: patterns of those whose spectrum is drawn at every so-manieth measurement."""
        self._patterns, self._every, self._compare = layers, every, compare
        self.waiting: list[str] = []  # flagged, and not drawn yet
        self._mapped_at: dict[str, int] = {}  # number of the latest measurement in a metric's map
        self._drawn_at: dict[str, int] = {}  # optimiser step at which a layer was drawn

    def maps(self, history: History[Measurement], *, at_once: bool) -> dict[str, Draw]:
        """``ww.maps/<metric>``: the whole history, a row for each layer; of those metrics whose turn it is."""
        if not at_once and not is_redrawn(history[-1].number, len(history)):
            return {}
        by_age = sorted(history[-1].metrics, key=lambda metric: self._mapped_at.get(metric, -1))
        return self._maps(history, by_age[:MOST_MAPS])

    def _maps(self, history: History[Measurement], metrics: Sequence[str]) -> dict[str, Draw]:
        if not metrics:
            return {}
        self._mapped_at |= dict.fromkeys(metrics, history[-1].number)
        everything = list(history)
        places = chosen(len(everything), most_columns())
        past = [everything[i] for i in places]
        # a flag that rose and fell between two columns is shown in the later one
        stretches = [everything[i + 1 : j + 1] for i, j in zip([-1, *places[:-1]], places, strict=True)]
        flags = [{name for one in some for layers in one.flags.values() for name in layers} for some in stretches]
        names: dict[str, None] = {}
        for one in sorted(past, key=lambda one: -len(one.layers)):  # in model order, which the longest has
            names |= dict.fromkeys(one.layers)
        names |= dict.fromkeys(sorted(set().union(*flags)))  # of a layer that was never measured, its frame alone
        rows, note = _rows(list(names), set().union(*flags))
        if not rows:
            return {}
        framed = np.array([[name in at for at in flags] for name in rows])
        note = f"{note} {FRAMES}".strip() if framed.any() else note
        places_of = [{name: i for i, name in enumerate(one.layers)} for one in past]
        chosen_rows = [np.array([of.get(name, -1) for name in rows]) for of in places_of]

        shown = labels(rows)

        def draw(metric: str) -> Pixels:
            values = np.column_stack([_column(one, metric, at) for one, at in zip(past, chosen_rows, strict=True)])
            title, columns = f"{metric}, by layer and optimiser steps made", [str(one.step) for one in past]
            return heat_map(title, shown, columns, values, TABLE[metric].scale, framed=framed, note=note)

        return {f"ww.maps/{metric}": partial(draw, metric) for metric in metrics}

    def spectra(
        self, report: WeightReport, risen: Sequence[str], number: int, step: int, *, is_baseline: bool
    ) -> dict[str, Draw]:
        """``ww.spectrum/<layer>`` of the layers whose turn it is: ``risen`` are those that have a new flag."""
        self.waiting += [name for name in risen if name not in self.waiting]
        due = self._named(report) if number % self._every == 0 or is_baseline else []
        extra = self._usual(report) if is_baseline else []
        return self._due(report, step, due, [*self.waiting, *extra])

    def last(self, history: History[Measurement], report: WeightReport, diagnosis: Diagnosis) -> dict[str, Draw]:
        """What is left for the end: maps that lack the latest measurement; the named layers, the flagged, some others."""
        latest = history[-1]
        behind = [metric for metric in latest.metrics if self._mapped_at.get(metric) != latest.number]
        others = [*self.waiting, *diagnosis.flagged_layers, *self._usual(report)]
        return self._maps(history, behind) | self._due(report, latest.step, self._named(report), others)

    def _named(self, report: WeightReport) -> list[str]:
        names = [layer.name for layer in report.layers]
        return [name for name in names if any(fnmatchcase(name, pattern) for pattern in self._patterns or ())]

    def _usual(self, report: WeightReport) -> list[str]:
        """Some layers, evenly by depth, where none was named."""
        names = [layer.name for layer in report.layers if layer.spectrum is not None]
        return [] if self._patterns else [names[i] for i in chosen(len(names), MOST_FIGURES)]

    def _due(self, report: WeightReport, step: int, asked: list[str], others: list[str]) -> dict[str, Draw]:
        layers = {layer.name: layer for layer in report.layers if layer.spectrum is not None and layer.sv_max}
        can = [name for name in (*asked, *others) if name in layers and self._drawn_at.get(name) != step]
        few = [name for name in dict.fromkeys(can) if name not in asked][:MOST_FIGURES]
        due = [name for name in can if name in asked] + few
        self.waiting = [name for name in self.waiting if name not in due]
        self._drawn_at |= dict.fromkeys(due, step)
        return {f"ww.spectrum/{name}": partial(_figure, layers[name], self._compare) for name in due}


def _rows(names: list[str], flagged: set[str]) -> tuple[list[str], str]:
    """Of too many layers so many as can be shown, the flagged ones first; and what is to be said of that."""
    if len(names) <= MAX_ROWS:
        return names, ""
    first = [name for name in names if name in flagged]
    first = [first[i] for i in chosen(len(first), MAX_ROWS)]
    others = [name for name in names if name not in flagged]
    keep = {*first, *(others[i] for i in chosen(len(others), MAX_ROWS - len(first)))}
    rows = [name for name in names if name in keep]
    how = "flagged ones, the others evenly by depth" if first else "evenly by depth"
    return rows, f"{len(rows)} of {len(names)} layers: {how}."


def _figure(layer: LayerReport, compare: bool) -> Pixels:
    return picture(lambda: layer_figure(layer, compare=compare))


def _column(measurement: Measurement, metric: str, places: NDArray[np.int_]) -> NDArray[np.float64]:
    """One metric of the layers at these places, NaN where there is none; -1 is a layer that was not measured."""
    if metric not in measurement.metrics:
        return np.full(len(places), np.nan)
    values = measurement.values[:, measurement.metrics.index(metric)].numpy()
    return np.append(values, np.nan)[places]
