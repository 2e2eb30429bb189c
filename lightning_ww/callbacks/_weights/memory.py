"""What `WeightSpectrumMonitor` remembers of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lightning_ww.callbacks._monitor.run import Memory

if TYPE_CHECKING:
    from lightning_ww.callbacks._weights.initial_weights import InitialWeightsKeeper
    from lightning_ww.callbacks._weights.logged_layers import LoggedLayers
    from lightning_ww.callbacks._weights.pictures import WeightPictures


@dataclass
class WeightMemory(Memory):
    """What is kept from one measurement of the weights to the next."""

    initial: InitialWeightsKeeper | None  # None: no distance from them is measured
    logged: LoggedLayers
    pictures: WeightPictures
    floors: dict[str, float] | None = None  # what noise reads, by layer; None: not measured yet

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "initial": None if self.initial is None else self.initial.state_dict(),
            "logged": self.logged.state_dict(),
            "undrawn": self.pictures.waiting,
            "floors": None if self.floors is None else dict(self.floors),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave; the initial weights are taken up by their keeper."""
        self.logged.load_state_dict(state["logged"])
        self.pictures.wait(state["undrawn"])
        self.floors = state["floors"]

    @override
    def write(self) -> str | None:
        return None if self.initial is None else self.initial.save()

    def lost(self, metrics: Sequence[str]) -> list[str]:
        """Those of these metrics that need initial weights which this run does not have."""
        return list(metrics) if self.initial is None or self.initial.are_lost else []
