"""The layers of weights that are logged one by one, and the bins of their histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lightning_ww.callbacks._monitor.logged_layers import LoggedLayers
from lightning_ww.weights.plots.histogram import EsdBins

if TYPE_CHECKING:
    from lightning_ww.history import Findings


class BinnedLayers(LoggedLayers):
    """A choice of layers whose histograms have fixed bins."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._bins: dict[str, EsdBins] = {}

    @override
    def choose(self, report: Findings, flagged: Sequence[str]) -> None:
        super().choose(report, flagged)
        for layer in report.layers:
            spectrum = getattr(layer, "spectrum", None)
            if spectrum is not None and layer.name in self.names and layer.name not in self._bins:
                self._bins[layer.name] = EsdBins.about(spectrum.eigenvalues)

    def bins(self, layer: str) -> EsdBins | None:
        """The bins of a layer's histogram, or ``None`` if it is not logged."""
        return self._bins.get(layer)

    @override
    def state_dict(self) -> dict[str, Any]:
        bins = {name: [own.low, own.high] for name, own in self._bins.items()}
        return {**super().state_dict(), "bins": bins}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        bins = {str(name): EsdBins(*map(int, own)) for name, own in state["bins"].items()}
        super().load_state_dict(state)
        self._bins = bins
