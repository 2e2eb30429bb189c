"""The state of a run that only `WeightSpectrumMonitor` has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lightning_ww.callbacks._monitor.restoring import Restoring
from lightning_ww.callbacks._monitor.run import Memory
from lightning_ww.callbacks._weights.previous_weights import PreviousWeights
from lightning_ww.callbacks._weights.snapshot import Messenger
from lightning_ww.weights.kept_shuffle import KeptShuffle
from lightning_ww.weights.unchanged import Unchanged

if TYPE_CHECKING:
    from lightning_ww.callbacks._weights.binned_layers import BinnedLayers
    from lightning_ww.callbacks._weights.initial_weights import InitialWeightsKeeper
    from lightning_ww.callbacks._weights.pictures import WeightPictures


@dataclass
class WeightMemory(Memory):
    """The state that is kept from one measurement of the weights to the next."""

    initial: InitialWeightsKeeper | None  # None: no distance from the initial weights is measured
    logged: BinnedLayers
    pictures: WeightPictures
    unchanged: Unchanged = field(default_factory=Unchanged)
    messenger: Messenger = field(default_factory=Messenger)
    previous: PreviousWeights = field(default_factory=PreviousWeights)
    order: list[str] = field(default_factory=list)  # the names of all layers of the latest snapshot
    floors: dict[str, float] | None = None  # the rand_distance of noise, by layer; None: not measured yet
    kept: dict[str, KeptShuffle] = field(default_factory=dict)  # the latest shuffle, by layer

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "initial": None if self.initial is None else self.initial.state_dict(),
            "logged": self.logged.state_dict(),
            "undrawn": self.pictures.waiting,
            "floors": None if self.floors is None else dict(self.floors),
            "kept": {name: kept.state_dict() for name, kept in self.kept.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> list[str]:
        """Restore the state that `state_dict` returned; the keeper restores the initial weights.

        Returns:
            Sentences on parts that could not be restored.
        """
        if not state.keys() - {"initial"}:
            return []  # lost as a whole, which is said elsewhere
        restoring = Restoring({name: value for name, value in state.items() if name != "initial"})
        restoring.part("logged", self.logged.load_state_dict)
        restoring.part("undrawn", lambda names: self.pictures.wait([str(name) for name in names]))
        restoring.part("floors", self._load_floors)
        restoring.part("kept", self._load_kept)
        return restoring.finish()

    def _load_floors(self, floors: Any) -> None:
        self.floors = None if floors is None else {str(name): float(floor) for name, floor in floors.items()}

    def _load_kept(self, kept: Any) -> None:
        self.kept = {str(name): KeptShuffle.of_state_dict(state) for name, state in kept.items()}

    @override
    def write(self) -> str | None:
        return None if self.initial is None else self.initial.save()

    def lost(self, metrics: Sequence[str]) -> list[str]:
        """Return these metrics, which need the initial weights, if this run does not have them; else none."""
        return list(metrics) if self.initial is None or self.initial.are_lost else []
