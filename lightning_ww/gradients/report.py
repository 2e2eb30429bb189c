"""The reports on the gradients of a layer and of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from lightning_ww._errors import UnknownLayerError
from lightning_ww._pandas import data_frame
from lightning_ww.gradients.layers import SkippedLayerGradients

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True)
class LayerGradients:
    """The numbers of one layer; ``None`` where one has no value, and `reasons` gives the reason."""

    name: str
    kind: str  # the module's class
    num_elements: int
    is_embedding: bool = False
    is_factor: bool = False  # of a low-rank product, such as LoRA's
    depth: int | None = None  # its place in the order in which the layers follow each other, from 0; None: not known
    norm: float | None = None
    highest_norm: float | None = None
    update_ratio: float | None = None
    zero_share: float | None = None
    nonfinite_share: float | None = None
    weight_norm: float | None = None
    weight_max: float | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def metric(self, name: str) -> float | None:
        """A number by name, or ``None`` where it has no value."""
        value: float | None = getattr(self, name)
        return value


@dataclass(frozen=True)
class GradientReport:
    """The gradients of a model's layers at one step."""

    layers: tuple[LayerGradients, ...]  # in model order
    skipped: tuple[SkippedLayerGradients, ...] = ()
    summary: Mapping[str, float] = field(default_factory=dict)  # the numbers of the model as a whole that are finite

    def __getitem__(self, name: str) -> LayerGradients:
        """A layer by its dotted name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = ", ".join(f"`{layer.name}`" for layer in self.layers)
        raise UnknownLayerError(f"no layer `{name}`; there are: {known}")

    def to_pandas(self) -> pandas.DataFrame:
        """Return a table with a row for each layer.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        frame = data_frame("GradientReport.to_pandas")
        return frame([{k: v for k, v in asdict(layer).items() if k != "reasons"} for layer in self.layers])


SUMMARIES = (
    *("norm", "highest_norm", "clip_factor", "update_ratio", "zero_share", "nonfinite_share"),
    *("num_nonfinite_steps", "weight_norm", "weight_max"),
)
"""The names of all numbers of a model as a whole."""
