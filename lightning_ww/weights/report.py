"""The reports on a layer and on a model, and tables of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lightning_ww import _checks
from lightning_ww._errors import UnknownLayerError
from lightning_ww._pandas import data_frame
from lightning_ww.weights.kept_shuffle import KeptShuffle
from lightning_ww.weights.metrics import BANDS, KEY_METRICS, METRICS, TABLE, LayerMetrics
from lightning_ww.weights.slices import SkippedLayer
from lightning_ww.weights.spectrum import Spectrum

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SUMMARIES: Mapping[str, Callable[[list[float]], np.floating[Any]]] = {
    "mean": np.mean,
    "least": np.min,
    "largest": np.max,
}
"""The functions that turn the layers' numbers into a number of the model."""


@dataclass(frozen=True, kw_only=True)
class LayerReport(LayerMetrics):
    """The report on one layer. A metric without a value is ``None``, and `reasons` gives the reason.

    `docs/metrics.md` lists the metrics, each of which is an attribute of this report.
    """

    # ── The layer
    name: str
    kind: str  # the module's class
    N: int  # long side of a slice
    M: int  # short side
    slices: int  # kernel positions of a convolution; else 1
    dtype: str
    is_embedding: bool
    is_convolution: bool
    is_frozen: bool
    is_factor: bool = False  # of a low-rank product, such as LoRA's
    zero_share: float = 0.0  # of elements that are exactly zero, as under a mask
    approximate: bool = False  # too large for an exact spectrum: metrics that need a spectrum are None
    shuffle: Literal["exact", "analytic", "kept", "off"] = "off"  # the way in which the shuffle's spectrum was made

    # ── The sources of its numbers
    reasons: Mapping[str, str] = field(default_factory=dict)  # why a metric is None, by metric
    spectrum: Spectrum | None = field(default=None, repr=False, compare=False)
    shuffled: Array | None = field(default=None, repr=False, compare=False)  # singular values, (slices, M)
    kept_shuffle: KeptShuffle | None = field(default=None, repr=False, compare=False)  # for the next measurement
    trap_eigenvalues: Array | None = field(
        default=None, repr=False, compare=False
    )  # the eigenvalues of the shuffle that are traps

    @property
    def num_eigenvalues(self) -> int:
        """The number of eigenvalues n, over all slices."""
        return self.M * self.slices

    @property
    def shape(self) -> str:
        """The shape in words: ``N × M``, and the number of slices if there are several."""
        return f"{self.N} × {self.M}" + (f" × {self.slices}" if self.slices > 1 else "")

    def metric(self, name: str) -> float | None:
        """A metric by name, or ``None`` where it has no value."""
        value = getattr(self, name)
        return None if value is None else float(value)

    def plot(self, *, compare: bool = False) -> Figure:
        """Draw the layer's spectrum: its density, the power law of its tail, and the density of its shuffle.

        Args:
            compare: Whether the title compares the tail with other distributions, by powerlaw; this takes several times
                as long. Default: ``False``.

        Returns:
            A matplotlib figure that pyplot does not manage.

        Raises:
            NoValueError: If there is no spectrum to draw. It is a `ValueError`.
        """
        from lightning_ww.weights.plots.layer import layer_figure

        return layer_figure(self, compare=compare)


@dataclass(frozen=True)
class WeightReport:
    """The report on the weights of a model at one moment."""

    layers: tuple[LayerReport, ...]  # in model order
    skipped: tuple[SkippedLayer, ...]
    seconds: float  # wall time of the analysis

    def __getitem__(self, name: str) -> LayerReport:
        """A layer by its dotted name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        for skip in self.skipped:
            if skip.name == name:
                raise UnknownLayerError(f"layer {name!r} was skipped ({skip.reason}): {skip.sentence}")
        raise UnknownLayerError(f"no layer {name!r}; this report has: {', '.join(layer.name for layer in self.layers)}")

    @cached_property
    def summary(self) -> Mapping[str, float]:
        """The numbers of the model, over all measured layers except embeddings; a key without a value is left out.

        Each is the mean, the smallest or the largest value of a metric; the table in `docs/metrics.md` says which.
        """
        summary = {}
        for name, metric in TABLE.items():
            if metric.summary is not None and (values := self._values(name)):
                value = float(SUMMARIES[metric.summary](values))
                if np.isfinite(value):
                    summary[name] = value
        return summary

    @cached_property
    def quantiles(self) -> Mapping[str, float]:
        """The spread of alpha, stable_rank and rand_distance over the layers: ``alpha_q10`` and so on."""
        spread = {}
        for name in BANDS:
            if values := self._values(name):
                for q in (10, 50, 90):
                    spread[f"{name}_q{q}"] = float(np.percentile(values, q))
        return spread

    def plot(self, metrics: str | Sequence[str] = KEY_METRICS) -> Figure:
        """Draw each of these metrics for every layer.

        Args:
            metrics: Names in `lightning_ww.METRICS`, or ``"all"``. Default: `lightning_ww.KEY_METRICS`.

        Returns:
            A matplotlib figure that pyplot does not manage.

        Raises:
            ArgumentError: If a metric is unknown, or there is no layer. It is a `ValueError`.
        """
        from lightning_ww.weights.plots.layers import report_figure

        return report_figure(self, metrics)

    def to_pandas(self, like: Literal["weightwatcher"] | None = None) -> pandas.DataFrame:
        """Return the report as a table with a row for each layer.

        Args:
            like: ``"weightwatcher"`` gives the columns of weightwatcher 0.7.7 in its own conventions (halved and
                squared norms, its threshold of 1e-5, …). Default: ``None``, this package's names and definitions.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
            ArgumentError: If ``like`` is another value. It is a `ValueError`.
        """
        frame = data_frame("WeightReport.to_pandas")
        if like is not None:
            if like != "weightwatcher":
                raise _checks.unfit("to_pandas", "like", like, "'weightwatcher' or `None`")
            from lightning_ww.weights.weightwatcher import weightwatcher_row

            return frame([weightwatcher_row(layer, i) for i, layer in enumerate(self.layers)])
        described = ("name", "kind", "N", "M", "slices", "dtype", "is_embedding", "is_frozen", "approximate", "shuffle")
        return frame(
            [{key: getattr(layer, key) for key in (*described, *METRICS)} for layer in self.layers],
            columns=[*described, *METRICS],
        )

    def _values(self, name: str) -> list[float]:
        values = (layer.metric(name) for layer in self.layers if not layer.is_embedding)
        return [value for value in values if value is not None]
