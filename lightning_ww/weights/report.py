"""What was measured: frozen records of layers and models, and tables of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from lightning_ww.weights.layers import SkippedLayer
    from lightning_ww.weights.spectrum import Spectrum

    Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """The numbers of one layer. A metric that has no value here is ``None``, and `reasons` says why.

    λ are the squares of all slices' singular values s, pooled, n of them; N is the long and M the short side of a
    slice.
    """

    # What it is
    name: str
    kind: str  # the module's class
    N: int
    M: int
    slices: int  # kernel positions of a convolution; else 1
    dtype: str
    is_embedding: bool
    is_convolution: bool
    is_frozen: bool
    approximate: bool = False  # too large for an exact spectrum: only what needs none is given

    # Power law
    alpha: float | None = None  # exponent of the tail, p(λ) ∝ λ^-alpha
    xmin: float | None = None  # where the tail begins
    ks_distance: float | None = None  # between fitted and empirical tail
    num_tail: int | None = None  # eigenvalues in the tail
    alpha_stderr: float | None = None  # (alpha - 1)/√num_tail
    alpha_hill: float | None = None  # Hill's exponent over the upper half
    alpha_weighted: float | None = None  # alpha · log10 λ_max
    log_alpha_norm: float | None = None  # log10 Σ λ^alpha

    # Norms and ranks
    log_norm: float | None = None  # log10 Σλ
    log_spectral_norm: float | None = None  # log10 λ_max
    sv_max: float | None = None
    sv_min: float | None = None
    condition_number: float | None = None  # sv_max/sv_min
    stable_rank: float | None = None  # Σλ/λ_max
    matrix_rank: int | None = None  # singular values above the weight's own rounding, summed over slices
    rank_loss: int | None = None  # n - matrix_rank
    entropy: float | None = None  # -Σ p ln p / ln matrix_rank, p = λ/Σλ
    effective_rank: float | None = None  # exp(-Σ p ln p)
    detx_num: int | None = None  # fewest top eigenvalues, scaled to mean 1, whose product is below 1
    erg_gap: int | None = None  # detx_num - num_tail

    # Against the same elements, shuffled
    rand_distance: float | None = None  # Jensen–Shannon distance of the two spectra, 0 … 0.83
    rand_distance_floor: float | None = None  # the same between two shuffles: what noise of this shape reads
    max_rand_eigenvalue: float | None = None  # λ_max of the shuffle
    ww_softrank: float | None = None  # over λ_max
    correlation_traps: int | None = None  # eigenvalues of the shuffle that noise exceeds once in a thousand
    trap_z: float | None = None  # the largest, in Tracy–Widom units
    trap_element: float | None = None  # largest element over the size at which it shows in the shuffle
    trap_mean_shift: float | None = None  # |mean| over the size at which it shows
    rank_deficit: float | None = None  # share of singular values at or below a tenth of the shuffle's
    shuffle: Literal["exact", "analytic", "off"] = "off"  # how the shuffle's spectrum was had

    # Marchenko–Pastur fit (only when asked)
    mp_scale: float | None = None
    bulk_min: float | None = None
    bulk_max: float | None = None
    num_spikes: int | None = None
    mp_softrank: float | None = None

    # Drift
    distance_from_init: float | None = None  # ‖W - W₀‖_F
    distance_from_init_relative: float | None = None  # over ‖W₀‖_F
    distance_from_init_cosine: float | None = None  # 1 - cos(W, W₀)
    distance_from_init_cka: float | None = None  # 1 - linear CKA (only when asked)

    reasons: Mapping[str, str] = field(default_factory=dict)  # why a metric is None, by metric
    spectrum: Spectrum | None = field(default=None, repr=False, compare=False)
    shuffled: Array | None = field(default=None, repr=False, compare=False)  # singular values, (slices, M)
    trap_eigenvalues: Array | None = field(default=None, repr=False, compare=False)  # of the shuffle, those traps

    @property
    def num_eigenvalues(self) -> int:
        """n, over all slices."""
        return self.M * self.slices

    def with_floor(self, floor: float | None) -> LayerReport:
        """The same with a `rand_distance_floor` that was measured before."""
        if floor is None:
            return self
        reasons = {metric: reason for metric, reason in self.reasons.items() if metric != "rand_distance_floor"}
        return replace(self, rand_distance_floor=floor, reasons=reasons)

    def plot(self, *, compare: bool = False) -> Figure:
        """Draw the layer's spectrum: its density, the power law of its tail, the same elements shuffled.

        Args:
            compare: Whether powerlaw compares the tail with other distributions, in the title; it takes several times as long.

        Returns:
            A figure of matplotlib's that no global state knows of.

        Raises:
            ValueError: If there is no spectrum to draw.
        """
        from lightning_ww.weights.plots.layer import layer_figure

        return layer_figure(self, compare=compare)

    def metric(self, name: str) -> float | None:
        """One metric by name."""
        value = getattr(self, name)
        return None if value is None else float(value)


METRICS: tuple[str, ...] = tuple(
    f.name
    for f in fields(LayerReport)
    if f.default is None and f.name not in ("spectrum", "shuffled", "trap_eigenvalues")
)
"""Every per-layer metric, in the order of the report's fields."""

BULK_METRICS = ("mp_scale", "bulk_min", "bulk_max", "num_spikes", "mp_softrank")
"""Metrics of the Marchenko–Pastur fit, which is made only when one of them is asked for."""

KEY_METRICS = ("alpha", "rand_distance", "sv_min", "distance_from_init", "stable_rank")
"""What is logged and shown of each layer unless asked otherwise: the four that tell most, and stable_rank."""

MEAN_SUMMARIES = ("alpha", "alpha_weighted", "log_norm", "rand_distance", "stable_rank", "distance_from_init_relative")
QUANTILE_SUMMARIES = ("alpha", "rand_distance", "stable_rank")


@dataclass(frozen=True)
class WeightReport:
    """What the weights of a model look like at one moment."""

    layers: tuple[LayerReport, ...]  # in model order
    skipped: tuple[SkippedLayer, ...]
    seconds: float  # wall time that the analysis took

    def __getitem__(self, name: str) -> LayerReport:
        """A layer by its dotted name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        for skip in self.skipped:
            if skip.name == name:
                raise KeyError(f"layer {name!r} was skipped ({skip.reason}): {skip.sentence}")
        raise KeyError(f"no layer {name!r}; this report has: {', '.join(layer.name for layer in self.layers)}")

    @cached_property
    def summary(self) -> Mapping[str, float]:
        """The model at a glance, over all measured layers but embeddings; a key without any value is left out.

        Means of alpha, alpha_weighted, log_norm, rand_distance, stable_rank and distance_from_init_relative; the least
        sv_min; the largest rank_deficit.
        """
        values = {name: self._values(name) for name in (*MEAN_SUMMARIES, "sv_min", "rank_deficit")}
        reduced = {name: float(np.mean(values[name])) for name in MEAN_SUMMARIES if values[name]}
        if values["sv_min"]:
            reduced["sv_min"] = min(values["sv_min"])
        if values["rank_deficit"]:
            reduced["rank_deficit"] = max(values["rank_deficit"])
        return {name: value for name, value in reduced.items() if np.isfinite(value)}

    @cached_property
    def quantiles(self) -> Mapping[str, float]:
        """How alpha, rand_distance and stable_rank are spread over the layers: ``alpha_q10`` and so on."""
        spread = {}
        for name in QUANTILE_SUMMARIES:
            if values := self._values(name):
                for q in (10, 50, 90):
                    spread[f"{name}_q{q}"] = float(np.percentile(values, q))
        return spread

    def plot(self, metrics: str | Sequence[str] = KEY_METRICS) -> Figure:
        """Draw each of these metrics of every layer.

        Args:
            metrics: Names among `lightning_ww.METRICS`, or ``"all"``. Default: alpha, rand_distance, sv_min,
                distance_from_init, stable_rank.

        Returns:
            A figure of matplotlib's that no global state knows of.

        Raises:
            ValueError: If a metric is unknown, or there is no layer.
        """
        from lightning_ww.weights.plots.layers import report_figure

        return report_figure(self, metrics)

    def to_pandas(self, like: Literal["weightwatcher"] | None = None) -> pandas.DataFrame:
        """One row a layer.

        Args:
            like: ``"weightwatcher"`` gives the columns of weightwatcher 0.7.7 in its own conventions (halved and
                squared norms, its cut at 1e-5, …). Default: our names, and the numbers as METRICS defines them.

        Raises:
            ModuleNotFoundError: Without pandas.
            ValueError: If ``like`` is something else.
        """
        frame = data_frame("WeightReport.to_pandas")
        if like == "weightwatcher":
            from lightning_ww.weights.weightwatcher import weightwatcher_row

            return frame([weightwatcher_row(layer, i) for i, layer in enumerate(self.layers)])
        if like is not None:
            raise ValueError(f"`to_pandas(like=...)` expected 'weightwatcher' or None, but got {like!r}.")
        described = ("name", "kind", "N", "M", "slices", "dtype", "is_embedding", "is_frozen", "approximate", "shuffle")
        return frame(
            [{key: getattr(layer, key) for key in (*described, *METRICS)} for layer in self.layers],
            columns=[*described, *METRICS],
        )

    def _values(self, name: str) -> list[float]:
        values = (layer.metric(name) for layer in self.layers if not layer.is_embedding)
        return [value for value in values if value is not None]


def data_frame(call: str) -> type[pandas.DataFrame]:
    """Pandas' data frame; without pandas, an error in the name of ``call`` that says what to install."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"`{call}()` needs pandas: `pip install lightning-ww[pandas]` or `pip install pandas`."
        ) from error
    return pandas.DataFrame
