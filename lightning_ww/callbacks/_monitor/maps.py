"""Maps of all layers over time: a row for each layer, a column for each measurement, and a map for each metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lightning_ww.drawing.heat_map import MAX_ROWS, chosen, heat_map, most_columns
from lightning_ww.drawing.labels import labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_ww.drawing.scale import Scale
    from lightning_ww.history import Measurement

    Pixels = NDArray[np.uint8]

FRAMES = "Framed: flagged."


class Maps:
    """A function that draws the map of a metric; the parts that all maps share are made only once.

    Args:
        history: The measurements, oldest first.
        scales: The colors of each metric's map.
    """

    def __init__(self, history: Sequence[Measurement], scales: Mapping[str, Scale]) -> None:
        self._history, self._scales = history, scales

    def __call__(self, metric: str) -> Pixels | None:
        """Draw the map of a metric; return its pixels, or ``None`` if there is no layer."""
        rows, framed, note = self.rows
        if not rows:
            return None
        title, columns = f"{metric}, by layer and optimizer steps made", [str(column.step) for column in self.columns]
        scale, values = self._scales[metric], self.values(metric)
        return heat_map(title, labels(rows), columns, values, scale, framed=framed, note=note)

    def __getstate__(self) -> dict[str, object]:
        """The parts that are shown; the history stays where it is."""
        return {"_history": (), "_scales": self._scales, "columns": self.columns, "rows": self.rows}

    def values(self, metric: str) -> NDArray[np.float64]:
        """The cells' values, shape ``(rows, columns)``, NaN where there is none."""
        return np.column_stack([_column(column, metric, self.rows[0]) for column in self.columns])

    @cached_property
    def _places(self) -> list[int]:
        return chosen(len(self._history), most_columns())

    @cached_property
    def columns(self) -> list[Measurement]:
        """The measurements that are shown."""
        return [self._history[i] for i in self._places]

    @cached_property
    def rows(self) -> tuple[list[str], NDArray[np.bool_], str]:
        """The names of the rows, the framed cells, and the note below the map."""
        # a flag that rose and fell between two columns is shown in the later column
        pairs = zip([-1, *self._places[:-1]], self._places, strict=True)
        stretches = [self._history[i + 1 : j + 1] for i, j in pairs]
        flags = [{name for column in some for layers in column.flags.values() for name in layers} for some in stretches]
        names: dict[str, None] = {}
        # the column with the most layers first, so that new layers keep the order of the model
        for column in sorted(self.columns, key=lambda column: -len(column.layers)):
            names |= dict.fromkeys(column.layers)
        names |= dict.fromkeys(sorted(set().union(*flags)))  # a layer that was never measured has only frames
        rows, note = shown_rows(list(names), set().union(*flags))
        framed = np.array([[name in at for at in flags] for name in rows])
        return rows, framed, f"{note} {FRAMES}".strip() if framed.any() else note


def shown_rows(names: list[str], flagged: set[str]) -> tuple[list[str], str]:
    """The rows of a map, chosen with flagged layers first if there are too many, and a note on the choice."""
    if len(names) <= MAX_ROWS:
        return names, ""
    first = [name for name in names if name in flagged]
    first = [first[i] for i in chosen(len(first), MAX_ROWS)]
    others = [name for name in names if name not in flagged]
    keep = {*first, *(others[i] for i in chosen(len(others), MAX_ROWS - len(first)))}
    rows = [name for name in names if name in keep]
    how = "flagged ones, the others evenly by depth" if first else "evenly by depth"
    return rows, f"{len(rows)} of {len(names)} layers: {how}."


def _column(measurement: Measurement, metric: str, rows: Sequence[str]) -> NDArray[np.float64]:
    """A metric of these layers, NaN where it has no value."""
    if metric not in measurement.metrics:
        return np.full(len(rows), np.nan)
    values = np.append(measurement.values[:, measurement.metrics.index(metric)].numpy(), np.nan)
    places = {name: i for i, name in enumerate(measurement.layers)}
    return values[[places.get(name, -1) for name in rows]]
