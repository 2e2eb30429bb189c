"""The layers that are logged one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lightning_ww.history import Findings


class LoggedLayers:
    """A choice of layers, fixed at the first measurement, so that curves do not come and go.

    A flagged layer is added for good, and so is a layer that is created later while there is room.
    """

    def __init__(self, most: int) -> None:
        """Choose at most ``most`` layers, evenly by depth."""
        self._most = most
        self.names: list[str] = []

    def choose(self, report: Findings, flagged: Sequence[str]) -> None:
        """Choose among the layers of a new report, and add those with a flag."""
        measured = [layer.name for layer in report.layers]
        if not self.names:
            places = np.linspace(0, len(measured) - 1, min(len(measured), self._most)).round().astype(int)
            self.names = [measured[i] for i in places]
        late = [name for name in measured if name not in self.names][: max(0, self._most - len(self.names))]
        self.names += [name for name in (*late, *flagged) if name and name not in self.names]

    def scalars(self, report: Findings, metrics: Sequence[str]) -> dict[str, float]:
        """The logged layers' numbers by key, ``<metric>/<layer>``."""
        values = {}
        for layer in report.layers:
            if layer.name in self.names:
                for metric in metrics:
                    if (value := layer.metric(metric)) is not None:
                        values[f"{metric}/{layer.name}"] = value
        return values

    def state_dict(self) -> dict[str, Any]:
        """The names."""
        return {"names": list(self.names)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.names = [str(name) for name in state["names"]]
