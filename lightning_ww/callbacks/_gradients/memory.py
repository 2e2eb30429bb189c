"""The state of a run that only `GradientMonitor` has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lightning_ww.callbacks._monitor.logged_layers import LoggedLayers
from lightning_ww.callbacks._monitor.restoring import Restoring
from lightning_ww.callbacks._monitor.run import Memory

if TYPE_CHECKING:
    from lightning_ww.gradients.reader import GradientReader


@dataclass
class GradientMemory(Memory):
    """The reader of the fit's gradients, and the layers that are logged."""

    reader: GradientReader | None
    logged: LoggedLayers

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"logged": self.logged.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> list[str]:
        """Restore the state that `state_dict` returned; return sentences on parts that could not be restored."""
        if not state:
            return []  # lost as a whole, which is said elsewhere
        restoring = Restoring(state)
        restoring.part("logged", self.logged.load_state_dict)
        return restoring.finish()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the reader, which holds the parameters."""
        return {**vars(self), "reader": None}
