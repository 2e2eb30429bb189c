"""The weights at the last measurement, from which updates are measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_ww.weights.initial import snapshot
from lightning_ww.weights.layers import Layer
from lightning_ww.weights.slices import SkippedLayer, Weight


class PreviousWeights:
    """Copies of the layers' slices on the CPU; they are in no checkpoint.

    Attributes:
        is_wanted: Whether they are kept at all. Default: ``False``.
    """

    def __init__(self) -> None:
        self.is_wanted = False
        self._kept: dict[str, Tensor] = {}
        self._taken: dict[str, Tensor] = {}

    def then_take(
        self, layers: Sequence[Layer], shared: Sequence[Weight | SkippedLayer] | None
    ) -> dict[str, Tensor] | None:
        """The slices at the last measurement, none at the first one of a fit; then copy the current ones for the next.

        Args:
            layers: All layers.
            shared: The weights that are this process's to measure; ``None``: all of them, which are read.

        Returns:
            Slices by layer; ``None`` if they are not wanted.
        """
        if not self.is_wanted:
            return None
        if shared is None:
            self._taken = snapshot(layers)
        else:
            self._taken = {one.name: one.slices.clone() for one in shared if isinstance(one, Weight)}
        return self._kept

    def keep(self) -> None:
        """Keep what was taken: the measurement has succeeded."""
        self._kept = self._taken

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the weights."""
        return {**vars(self), "_kept": {}, "_taken": {}}
