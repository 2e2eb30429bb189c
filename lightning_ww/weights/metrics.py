"""The table of all metrics of a layer: their meaning, colors, summary, required inputs, and computation.

A new metric is a function of matrices in a file of this folder, and a row here. Tables list the metrics in the order of
the rows. A row comes after the row that it follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from lightning_ww.drawing.scale import Scale
from lightning_ww.weights.ingredients import Ingredients
from lightning_ww.weights.metric import COUNT, DISTANCE, EIGENVALUE, EXPONENT, SHARE, SIGNED_LOG, WEIGHTED, Metric, Need
from lightning_ww.weights.power_law import hill_alpha
from lightning_ww.weights.shuffle import rank_deficit


def _row(meaning: str, scale: Scale, of: Callable[[Ingredients], float | None], **more: Any) -> Any:
    """A field of `LayerMetrics`, from which the metric gets its name."""
    return field(default=None, metadata={"metric": Metric("", meaning, scale, of, **more)})


FROM_FIT: Any = {"needs": ("mp_fit",), "follows": "mp_scale"}
FROM_INITIAL: Any = {
    "needs": ("initial",),
    "follows": "distance_from_init",
    "absent": "the weight, or the initial one, is zero",
}


@dataclass(frozen=True, kw_only=True)
class LayerMetrics:
    """The metrics of one layer; ``None`` where a metric has no value.

    λ stands for the n squared singular values of all slices together; N is the long side of a slice, and M the short side.
    """

    # ── The power law of the spectrum's tail
    alpha: float | None = _row(
        "exponent of the tail, p(λ) ∝ λ^-alpha", EXPONENT, lambda x: x.fit.alpha, summary="mean", quantiles=True
    )
    xmin: float | None = _row("where the tail begins", EIGENVALUE, lambda x: x.eigenvalue(x.fit.xmin), follows="alpha")
    ks_distance: float | None = _row(
        "distance between the fitted and the empirical tail",
        Scale(0, 0.4),
        lambda x: x.fit.ks_distance,
        follows="alpha",
    )
    num_tail: int | None = _row("eigenvalues in the tail", COUNT, lambda x: x.fit.num_tail, follows="alpha")
    alpha_stderr: float | None = _row(
        "standard error for a known xmin, (alpha - 1)/√num_tail: ±1 covers 52–60 %",
        Scale(0, 2),
        lambda x: x.fit.alpha_stderr,
        follows="alpha",
    )
    alpha_bootstrap_stderr: float | None = _row(
        "standard error by the bootstrap, with xmin searched in each draw: ±1 covers at least 68 %",
        Scale(0, 2),
        lambda x: x.bootstrap_stderr,
        needs=("bootstrap",),
        follows="alpha",
    )
    alpha_hill: float | None = _row(
        "Hill's exponent over the upper half", EXPONENT, lambda x: hill_alpha(x.live.eigenvalues)
    )
    alpha_hill_null: float | None = _row(
        "alpha_hill of noise of this shape", EXPONENT, lambda x: x.hill_null[0], needs=("floor",)
    )
    alpha_hill_null_sd: float | None = _row(
        "standard deviation of alpha_hill over noise of this shape",
        Scale(1e-3, 1, is_log=True),
        lambda x: x.hill_null[1],
        needs=("floor",),
        follows="alpha_hill_null",
    )
    alpha_weighted: float | None = _row(
        "alpha · log10 λ_max",
        WEIGHTED,
        lambda x: x.fit.alpha * x.log10(x.sum_and_largest[1]),
        summary="mean",
        follows="alpha",
    )
    log_alpha_norm: float | None = _row(
        "log10 Σ λ^alpha",
        WEIGHTED,
        lambda x: x.live.log_sum_power(x.fit.alpha) + x.fit.alpha * x.log10(1.0),
        follows="alpha",
    )

    # ── Norms and ranks
    log_norm: float | None = _row("log10 Σλ", SIGNED_LOG, lambda x: x.log10(x.sum_and_largest[0]), summary="mean")
    log_spectral_norm: float | None = _row("log10 λ_max", SIGNED_LOG, lambda x: x.log10(x.sum_and_largest[1]))
    sv_max: float | None = _row("largest singular value", Scale(1e-2, 1e3, is_log=True), lambda x: x.sv_max * x.unit)
    sv_min: float | None = _row(
        "smallest singular value", Scale(1e-6, 1e2, is_log=True), lambda x: x.spectrum.sv_min * x.unit, summary="least"
    )
    condition_number: float | None = _row(
        "sv_max/sv_min",
        Scale(1, 1e6, is_log=True),
        lambda x: x.spectrum.condition_number,
        absent="the smallest singular value is at or below the weight's own rounding",
    )
    stable_rank: float | None = _row(
        "Σλ / λ_max",
        Scale(1, 1e3, is_log=True),
        lambda x: x.sum_and_largest[0] / x.sum_and_largest[1],
        summary="mean",
        quantiles=True,
    )
    matrix_rank: int | None = _row(
        "singular values above the weight's own rounding, summed over slices", COUNT, lambda x: x.spectrum.matrix_rank
    )
    rank_loss: int | None = _row(
        "n - matrix_rank", Scale(0, 64), lambda x: x.spectrum.eigenvalues.size - x.spectrum.matrix_rank
    )
    entropy: float | None = _row(
        "-Σ p ln p / ln matrix_rank, p = λ/Σλ",
        SHARE,
        lambda x: x.entropy,
        absent="a matrix of rank one has no entropy to normalize",
    )
    effective_rank: float | None = _row("exp(-Σ p ln p)", COUNT, lambda x: float(np.exp(x.live.shannon_entropy)))
    detx_num: int | None = _row(
        "fewest top eigenvalues, scaled to mean 1, whose product is below 1", COUNT, lambda x: x.detx_num
    )
    erg_gap: int | None = _row(
        "detx_num - num_tail", Scale(-100, 100), lambda x: x.detx_num - x.fit.num_tail, follows="alpha"
    )

    # ── Comparison with the shuffle
    rand_distance: float | None = _row(
        "Jensen–Shannon distance between the spectrum and the shuffle's, 0 … 0.83",
        DISTANCE,
        lambda x: x.distance_to_shuffle(x.live.eigenvalues),
        summary="mean",
        quantiles=True,
        needs=("shuffle",),
    )
    rand_distance_floor: float | None = _row(
        "rand_distance of a shuffle of the layer: the value for noise of these elements",
        DISTANCE,
        lambda x: x.floor,
        needs=("floor",),
    )
    max_rand_eigenvalue: float | None = _row(
        "λ_max of the shuffle", EIGENVALUE, lambda x: x.eigenvalue(x.shuffled_eigenvalues.max()), needs=("shuffle",)
    )
    ww_softrank: float | None = _row(
        "λ_max of the shuffle over λ_max",
        SHARE,
        lambda x: float(x.shuffled_eigenvalues.max() / x.live.eigenvalues[-1]),
        needs=("shuffle",),
    )
    trap_z: float | None = _row(
        "distance of the shuffle's λ_max beyond the edge of noise, in Tracy–Widom units",
        Scale(-4, 12),
        lambda x: float(np.nanmax(x.trap_scores)),
        needs=("shuffle",),
    )
    trap_z_centred: float | None = _row(
        "the same without the elements' mean: raised by a few large elements, or by many moderately large ones",
        Scale(-4, 12),
        lambda x: float(np.nanmax(x.centered_trap_scores)),
        needs=("shuffle",),
        follows="trap_z",
    )
    correlation_traps: int | None = _row(
        "eigenvalues of the shuffle above a size that noise exceeds once in a thousand",
        Scale(0, 8),
        lambda x: x.traps.size,
        needs=("shuffle",),
        follows="trap_z",
    )
    trap_element: float | None = _row(
        "largest element over the size at which it shows in the shuffle", Scale(0, 2), lambda x: x.elements.trap_element
    )
    trap_mean_shift: float | None = _row(
        "|mean| over the size at which it shows in the shuffle", Scale(0, 2), lambda x: x.elements.trap_mean_shift
    )
    rank_deficit: float | None = _row(
        "share of singular values at or below a tenth of the shuffle's",
        SHARE,
        lambda x: rank_deficit(x.spectrum.above_rounding, x.shuffled),
        summary="largest",
        needs=("shuffle",),
    )

    # ── The Marchenko–Pastur bulk fitted to the spectrum
    mp_scale: float | None = _row(
        "σ of the bulk, for eigenvalues scaled to mean 1", Scale(0, 2), lambda x: x.bulk.mp_scale, needs=("mp_fit",)
    )
    bulk_min: float | None = _row(
        "lower edge of the bulk", EIGENVALUE, lambda x: x.eigenvalue(x.bulk.bulk_min), **FROM_FIT
    )
    bulk_max: float | None = _row(
        "upper edge of the bulk", EIGENVALUE, lambda x: x.eigenvalue(x.bulk.bulk_max), **FROM_FIT
    )
    num_spikes: int | None = _row("eigenvalues above the bulk", Scale(0, 8), lambda x: x.bulk.num_spikes, **FROM_FIT)
    mp_softrank: float | None = _row("bulk_max/λ_max", SHARE, lambda x: x.bulk.mp_softrank, **FROM_FIT)

    # ── Drift
    distance_from_init: float | None = _row(
        "‖W - W₀‖_F", Scale(1e-3, 1e3, is_log=True), lambda x: x.drift.distance_from_init * x.unit, needs=("initial",)
    )
    distance_from_init_relative: float | None = _row(
        "‖W - W₀‖_F / ‖W₀‖_F",
        Scale(1e-3, 1e1, is_log=True),
        lambda x: x.drift.distance_from_init_relative,
        summary="mean",
        **FROM_INITIAL,
    )
    distance_from_init_cosine: float | None = _row(
        "1 - ⟨W, W₀⟩/(‖W‖‖W₀‖)", SHARE, lambda x: x.drift.distance_from_init_cosine, **FROM_INITIAL
    )
    distance_from_init_cka: float | None = _row(
        "1 - linear CKA of W and W₀, uncentered",
        SHARE,
        lambda x: x.drift.distance_from_init_cka,
        **(FROM_INITIAL | {"needs": ("cka", "initial")}),
    )
    update_relative: float | None = _row(
        "‖ΔW‖_F / ‖W‖_F since the last measurement",
        Scale(1e-6, 1, is_log=True),
        lambda x: x.update.update_relative,
        needs=("previous",),
        absent="the weight is zero",
    )
    update_stable_rank: float | None = _row(
        "Σλ / λ_max of ΔW", Scale(1, 1e3, is_log=True), lambda x: x.update.update_stable_rank, needs=("previous",)
    )

    # ── Attention
    attention_logit_scale: float | None = _row(
        "largest singular value of W_qᵀ W_k of any head, of a layer of queries",
        Scale(1e-2, 1e3, is_log=True),
        lambda x: x.attention_logit_scale,
        needs=("attention",),
        absent="it is no layer of queries of an attention module that is recognized",
    )


TABLE: dict[str, Metric] = {
    row.name: replace(row.metadata["metric"], name=row.name) for row in fields(LayerMetrics) if "metric" in row.metadata
}
"""The rows by name."""

METRICS: tuple[str, ...] = tuple(TABLE)
"""The names of all metrics of a layer, in the order of the table."""

KEY_METRICS = ("alpha", "alpha_hill", "rand_distance", "sv_min", "distance_from_init", "stable_rank")
"""The metrics that are logged and shown for each layer by default: the four most telling, Hill's alpha, and stable_rank."""

BANDS = tuple(name for name in dict.fromkeys((*KEY_METRICS, *METRICS)) if TABLE[name].quantiles)
"""Metrics whose quantiles over the layers are logged, the key metrics first."""


def needing(need: Need) -> tuple[str, ...]:
    """The metrics that need this input."""
    return tuple(name for name, metric in TABLE.items() if need in metric.needs)
