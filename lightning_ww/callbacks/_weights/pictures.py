"""The pictures of the weights that are due at a measurement: maps of all layers over time, and single layers' spectra."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lightning_ww.callbacks._monitor.maps import Maps
from lightning_ww.callbacks._monitor.pictures import is_redrawn
from lightning_ww.callbacks._monitor.view import Picture
from lightning_ww.drawing.canvas import picture
from lightning_ww.drawing.heat_map import chosen
from lightning_ww.weights.metrics import TABLE
from lightning_ww.weights.plots.layer import layer_figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_ww.history import History, Measurement
    from lightning_ww.weights.report import LayerReport, WeightReport

    Pixels = NDArray[np.uint8]

MOST_FIGURES = 3
"""The most spectra that are drawn at a measurement for layers that the user did not name (`benchmarks/panels.md`)."""

MOST_MAPS = 8
"""The most heat maps that are drawn at a measurement; if there are more metrics, they take turns."""

SCALES = {name: metric.scale for name, metric in TABLE.items()}
"""The colors of each metric's map."""


class WeightPictures:
    """The choice of the metrics' maps and the layers' spectra that are drawn at a measurement; they take turns.

    Args:
        layers: Names or patterns of the layers whose spectrum is drawn regularly; ``None``: three layers, at the start and
            at the end.
        every: The number of measurements from one drawing of those layers to the next.
        compare: Whether their tails are compared with other distributions.
        drawn: The number of the measurement that the latest picture shows, by the picture's key; `Pictures` updates it.
        redraws: A function that says whether maps are drawn again, from a measurement's number and the number of
            measurements kept. Default: `is_redrawn`.
    """

    def __init__(
        self,
        layers: Sequence[str] | None,
        every: int,
        *,
        compare: bool,
        drawn: Mapping[str, int],
        redraws: Callable[[int, int], bool] = is_redrawn,
    ) -> None:
        self._patterns, self._every, self._compare = layers, every, compare
        self._drawn, self._redraws = drawn, redraws
        self._flagged_at: dict[str, int] = {}  # the number of the measurement at which a layer's flag rose

    @property
    def waiting(self) -> list[str]:
        """The flagged layers that were not drawn since their flag rose."""
        return [name for name, since in self._flagged_at.items() if self._drawn.get(f"spectrum/{name}", -1) < since]

    def wait(self, names: Sequence[str], since: int = 0) -> None:
        """Add layers to draw, even those that were drawn at a measurement with a number below ``since``."""
        self._flagged_at = {name: self._flagged_at[name] for name in self.waiting}
        self._flagged_at |= {name: since for name in names if name not in self._flagged_at}

    def due(
        self,
        history: History[Measurement],
        report: WeightReport,
        metrics: Sequence[str],
        flagged: Sequence[str],
        risen: Sequence[str],
    ) -> list[Picture]:
        """The pictures of the latest measurement, those for now and those for the end.

        Args:
            history: The measurements so far.
            report: The report of the latest measurement.
            metrics: The metrics whose maps are drawn.
            flagged: The layers with a flag.
            risen: The layers with a new flag.
        """
        latest = history[-1]
        at_once = latest.is_baseline or bool(risen)
        self.wait(risen, latest.number)
        return self._maps(history, metrics, at_once=at_once) + self._spectra(report, latest, flagged)

    def _maps(self, history: History[Measurement], metrics: Sequence[str], *, at_once: bool) -> list[Picture]:
        """The pictures ``maps/<metric>``: the whole history, with a row for each layer."""
        draw = Maps(tuple(history), SCALES)
        by_age = sorted(metrics, key=lambda metric: self._drawn.get(f"maps/{metric}", -1))
        is_due = at_once or self._redraws(history[-1].number, len(history))
        now = set(by_age[:MOST_MAPS] if is_due else ())
        return [
            Picture(f"maps/{metric}", partial(draw, metric), "now" if metric in now else "end") for metric in by_age
        ]

    def _spectra(self, report: WeightReport, latest: Measurement, flagged: Sequence[str]) -> list[Picture]:
        """The pictures ``spectrum/<layer>`` of the layers whose turn it is."""
        layers = {layer.name: layer for layer in report.layers if layer.spectrum is not None and layer.sv_max}
        usual, named, waiting = self._usual(report), self._named(report), self.waiting
        is_due = latest.number % self._every == 0 or latest.is_baseline
        asked = [name for name in named if is_due and name in layers]
        others = [*waiting, *(usual if latest.is_baseline else [])]
        few = [name for name in dict.fromkeys(others) if name in layers and name not in asked][:MOST_FIGURES]
        now = [*asked, *few]
        last = [name for name in dict.fromkeys([*waiting, *flagged, *usual]) if name in layers]
        last = [name for name in last if name not in now and name not in named][:MOST_FIGURES]
        later = [name for name in named if name in layers and name not in now] + last
        return [self._figure(layers[name], "now") for name in now] + [
            self._figure(layers[name], "end") for name in later
        ]

    def _figure(self, layer: LayerReport, when: str) -> Picture:
        draw = partial(_draw_layer, layer, self._compare)
        return Picture(f"spectrum/{layer.name}", draw, "now" if when == "now" else "end")

    def _named(self, report: WeightReport) -> list[str]:
        names = [layer.name for layer in report.layers]
        return [name for name in names if any(fnmatchcase(name, pattern) for pattern in self._patterns or ())]

    def _usual(self, report: WeightReport) -> list[str]:
        """Some layers, evenly by depth, if the user named none."""
        names = [layer.name for layer in report.layers if layer.spectrum is not None]
        return [] if self._patterns else [names[i] for i in chosen(len(names), MOST_FIGURES)]


def _draw_layer(layer: LayerReport, compare: bool) -> Pixels:
    return picture(lambda: layer_figure(layer, compare=compare))
