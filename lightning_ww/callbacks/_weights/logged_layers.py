"""Which layers are logged one by one, and what is logged of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_ww.weights.plots.histogram import EsdBins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning_ww.triggers.diagnosis import Diagnosis, TriggerName
    from lightning_ww.weights.report import WeightReport
    from lightning_ww.weights.spectrum import Spectrum


class LoggedLayers:
    """Fixed at the first measurement, so that curves do not come and go.

    A layer that is flagged joins for good, and so does one that comes into being later while there is room.
    """

    def __init__(self, most: int) -> None:
        """Of more than ``most`` layers, so many are logged, evenly by depth."""
        self._most = most
        self._names: list[str] = []
        self._bins: dict[str, EsdBins] = {}

    def choose(self, report: WeightReport, diagnosis: Diagnosis) -> None:
        """Take note of the layers of a new report."""
        measured = [layer.name for layer in report.layers]
        if not self._names:
            places = np.linspace(0, len(measured) - 1, min(len(measured), self._most)).round().astype(int)
            self._names = [measured[i] for i in places]
        late = [name for name in measured if name not in self._names][: max(0, self._most - len(self._names))]
        self._names += [name for name in (*late, *diagnosis.flagged_layers) if name not in self._names]
        for layer in report.layers:
            if layer.spectrum is not None and layer.name in self._names and layer.name not in self._bins:
                self._bins[layer.name] = EsdBins.about(layer.spectrum.eigenvalues)

    def scalars(
        self, report: WeightReport, diagnosis: Diagnosis, metrics: Sequence[str], triggers: Sequence[TriggerName]
    ) -> dict[str, float]:
        """``ww.<metric>/<layer>``, ``flags/<trigger>`` and ``flags.<trigger>/<layer>``."""
        found = {}
        for layer in report.layers:
            if layer.name in self._names:
                for metric in metrics:
                    if (value := layer.metric(metric)) is not None:
                        found[f"ww.{metric}/{layer.name}"] = value
        for trigger in triggers:
            flagged = diagnosis.layers(trigger)
            found[f"flags/{trigger}"] = float(len(flagged))
            found |= {f"flags.{trigger}/{name}": float(name in flagged) for name in self._names}
        return found

    def spectra(self, report: WeightReport) -> dict[str, tuple[Spectrum, EsdBins]]:
        """``ww.esd/<layer>``: the spectrum, and the bins in which it is counted."""
        return {
            f"ww.esd/{layer.name}": (layer.spectrum, self._bins[layer.name])
            for layer in report.layers
            if layer.name in self._bins and layer.spectrum is not None
        }

    def state_dict(self) -> dict[str, Any]:
        """Names and bins."""
        return {"names": list(self._names), "bins": {name: [b.low, b.high] for name, b in self._bins.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._names = list(state["names"])
        self._bins = {name: EsdBins(*bins) for name, bins in state["bins"].items()}
