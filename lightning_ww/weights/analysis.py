"""Layers in, a `WeightReport` out: each is read, decomposed once, described, and compared with its shuffle."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_ww.weights import drift, spectrum
from lightning_ww.weights import layers as matrices
from lightning_ww.weights import shuffle as randomized
from lightning_ww.weights.marchenko_pastur import fit_marchenko_pastur, tracy_widom_threshold
from lightning_ww.weights.power_law import NoPowerLawError, fit_power_law, hill_alpha
from lightning_ww.weights.report import BULK_METRICS, METRICS, LayerReport, WeightReport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Shuffle = Literal["auto", "exact", "analytic", "off"]
"""How the shuffled spectra are had."""


def measure(
    found: Sequence[matrices.Layer],
    skipped: Sequence[matrices.SkippedLayer] = (),
    *,
    initial: Mapping[str, Tensor] | None = None,
    shuffler: randomized.Shuffler,
    shuffle: Shuffle = "auto",
    include_frozen: bool = True,
    mp_fit: bool = False,
    cka: bool = False,
    floor: bool = False,
) -> WeightReport:
    """Measure these layers, as `analyze` describes; ``initial`` holds slices by layer name."""
    began = time.perf_counter()
    reports: list[LayerReport] = []
    skips = list(skipped)
    for layer in found:
        try:
            stored = layer.read()
            if not include_frozen and layer.is_frozen:
                raise matrices.UnreadableWeightError("frozen", "nothing in this layer is trained")
            with np.errstate(all="ignore"):  # a number that overflows is withheld, with its reason
                report = _measure_layer(
                    layer,
                    stored,
                    None if initial is None else initial.get(layer.name),
                    has_initial=initial is not None,
                    shuffler=shuffler,
                    shuffle=shuffle,
                    mp_fit=mp_fit,
                    cka=cka,
                    floor=floor,
                )
            reports.append(report)
        except matrices.UnreadableWeightError as unreadable:
            skips.append(matrices.SkippedLayer(layer.name, unreadable.reason, unreadable.sentence))
        except Exception as error:  # nothing in one layer may stop the analysis of the others
            sentence = f"{type(error).__name__}: {error}"
            skips.append(matrices.SkippedLayer(layer.name, "failed", sentence))
    return WeightReport(tuple(reports), tuple(skips), time.perf_counter() - began)


def _measure_layer(
    layer: matrices.Layer,
    stored: Tensor,
    initial: Tensor | None,
    *,
    has_initial: bool,
    shuffler: randomized.Shuffler,
    shuffle: Shuffle,
    mp_fit: bool,
    cka: bool,
    floor: bool,
) -> LayerReport:
    count, rows, cols = stored.shape
    N, M = max(rows, cols), min(rows, cols)
    matrices.check_size(stored)
    slices = stored.to(device="cpu", dtype=torch.float64).contiguous().numpy()
    statistics = randomized.element_statistics(slices)
    if not np.isfinite(statistics.mean).all():
        matrices.check_finite(stored)
        raise matrices.UnreadableWeightError("failed", "the elements are finite, but too large to be summed in float64")
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}

    if initial is not None and initial.shape == stored.shape:
        before = initial.to(device="cpu", dtype=torch.float64).numpy()
        values |= asdict(drift.distance_from_init(slices, before, cka=cka))
    elif has_initial:
        reasons[drift.METRICS[0]] = (
            "the initial weights hold no such layer"
            if initial is None
            else f"the initial weight has slices of shape {tuple(initial.shape)}"
        )
    values["trap_element"], values["trap_mean_shift"] = statistics.trap_element, statistics.trap_mean_shift

    measured = shuffled = None
    if M > spectrum.MAX_EXACT:
        values |= _approximate(slices)
    else:
        precise = stored.dtype == torch.float64
        singular = spectrum.singular_values(slices, precise=precise)
        measured = spectrum.Spectrum(singular, N, spectrum.storage_eps(stored.dtype))
        _describe(measured, values, reasons)
        if mp_fit:
            _fit_bulk(measured, values, reasons)
        if shuffle != "off":
            analytic = (shuffle == "analytic" and statistics.varies.all()) or (
                shuffle == "auto" and statistics.predictable
            )
            values["shuffle"] = "analytic" if analytic else "exact"
            if analytic:
                shuffled = randomized.predicted_singular_values(slices, statistics)
            else:
                shuffled = spectrum.singular_values(shuffler.shuffle(slices, layer.name))
            _compare(measured, shuffled, statistics, values, reasons)
            if floor:
                values["rand_distance_floor"] = _floor(slices, shuffler, layer.name)
    for name in [name for name, value in values.items() if isinstance(value, float) and not np.isfinite(value)]:
        reasons[name] = f"not finite ({values.pop(name)})"
    asked = {"mp_fit": mp_fit, "floor": floor, "cka": cka, "initial": has_initial, "shuffle": shuffle != "off"}
    _explain(values, reasons, asked, M)
    return LayerReport(
        name=layer.name,
        kind=layer.kind,
        N=N,
        M=M,
        slices=count,
        dtype=str(stored.dtype).removeprefix("torch."),
        is_embedding=layer.is_embedding,
        is_convolution=layer.is_convolution,
        is_frozen=layer.is_frozen,
        reasons=reasons,
        spectrum=measured,
        shuffled=shuffled,
        **values,
    )


def _describe(measured: spectrum.Spectrum, values: dict[str, Any], reasons: dict[str, str]) -> None:
    """What the layer's own spectrum says."""
    n = measured.eigenvalues.size
    values |= {
        "sv_max": measured.sv_max,
        "sv_min": measured.sv_min,
        "matrix_rank": measured.matrix_rank,
        "rank_loss": n - measured.matrix_rank,
        "condition_number": measured.condition_number,
    }
    if measured.condition_number is None:
        reasons["condition_number"] = "the least singular value is at or below the weight's own rounding"
    largest = measured.eigenvalues[-1]
    if not largest > 0:
        return
    values |= {
        "log_norm": float(np.log10(measured.eigenvalues.sum())),
        "log_spectral_norm": float(np.log10(largest)),
        "stable_rank": measured.stable_rank,
        "effective_rank": float(np.exp(measured.shannon_entropy)),
        "detx_num": measured.determinant_constraint(),
    }
    if measured.matrix_rank > 1:
        values["entropy"] = measured.shannon_entropy / float(np.log(measured.matrix_rank))
    else:
        reasons["entropy"] = "a matrix of rank one has no entropy to normalise"
    try:
        fit = fit_power_law(measured.eigenvalues)
        values |= asdict(fit)
        values["alpha_weighted"] = fit.alpha * values["log_spectral_norm"]
        values["log_alpha_norm"] = measured.log_sum_power(fit.alpha)
        values["erg_gap"] = values["detx_num"] - fit.num_tail
    except NoPowerLawError as none:
        reasons["alpha"] = str(none)
    try:
        values["alpha_hill"] = hill_alpha(measured.eigenvalues)
    except NoPowerLawError as none:
        reasons["alpha_hill"] = str(none)


def _fit_bulk(measured: spectrum.Spectrum, values: dict[str, Any], reasons: dict[str, str]) -> None:
    try:
        values |= asdict(fit_marchenko_pastur(measured.eigenvalues, measured.N, measured.M))
    except ValueError as error:
        reasons["mp_scale"] = str(error)


def _compare(
    measured: spectrum.Spectrum,
    shuffled: Array,
    statistics: randomized.ElementStatistics,
    values: dict[str, Any],
    reasons: dict[str, str],
) -> None:
    """What the layer's spectrum says beside its shuffle's."""
    values["rank_deficit"] = randomized.rank_deficit(measured.above_rounding, shuffled)
    largest = measured.eigenvalues[-1]
    if not largest > 0:
        return
    eigenvalues = np.square(shuffled)
    values["rand_distance"] = randomized.jensen_shannon_distance(measured.eigenvalues, eigenvalues.ravel())
    values["max_rand_eigenvalue"] = float(eigenvalues.max())
    values["ww_softrank"] = float(eigenvalues.max() / largest)
    scores = randomized.trap_scores(shuffled, statistics)
    if scores is None:
        reasons["trap_z"] = "all elements of a slice are alike: no noise, no edge"
    else:
        values["trap_z"] = float(np.nanmax(scores))
        traps = eigenvalues[scores > tracy_widom_threshold(measured.singular_values.shape[0])]
        values["trap_eigenvalues"], values["correlation_traps"] = traps, traps.size


def _floor(slices: Array, shuffler: randomized.Shuffler, name: str) -> float | None:
    """The rand_distance between two independent shuffles."""
    first, second = (spectrum.singular_values(shuffler.shuffle(slices, name, draw=draw)) for draw in (1, 2))
    if not first.max() > 0:
        return None
    return randomized.jensen_shannon_distance(np.square(first).ravel(), np.square(second).ravel())


def _approximate(slices: Array) -> dict[str, Any]:
    """What can be said of a matrix too large to decompose: its norms, and the largest singular value by Lanczos."""
    total = float(np.square(slices).sum())
    largest = max(spectrum.largest_singular_value(matrix) for matrix in slices)
    values: dict[str, Any] = {"approximate": True, "sv_max": largest}
    if total > 0:
        values["log_norm"] = float(np.log10(total))
        values["log_spectral_norm"] = float(np.log10(largest**2))
        values["stable_rank"] = total / largest**2
    return values


FOLLOWS = {
    **dict.fromkeys(("xmin", "ks_distance", "num_tail", "alpha_stderr", "alpha_weighted", "log_alpha_norm"), "alpha"),
    "erg_gap": "alpha",
    "correlation_traps": "trap_z",
    **dict.fromkeys(drift.METRICS[1:], "distance_from_init"),
    **dict.fromkeys(BULK_METRICS[1:], "mp_scale"),
}
"""Metrics that are ``None`` for the reason of another one."""

GROUPS = {
    "mp_fit": BULK_METRICS,
    "floor": ("rand_distance_floor",),
    "cka": ("distance_from_init_cka",),
    "initial": drift.METRICS,
    "shuffle": (
        *("rand_distance", "max_rand_eigenvalue", "ww_softrank", "correlation_traps", "trap_z", "rank_deficit"),
    ),
}
"""Metrics that are made only when they are asked for."""

ASK = {
    "mp_fit": "not asked for (`mp_fit=True`)",
    "floor": "not asked for (`floor=True`)",
    "cka": "not asked for (`cka=True`)",
    "initial": "no initial weights were given",
    "shuffle": "not asked for (`shuffle='off'`)",
}


def _explain(values: dict[str, Any], reasons: dict[str, str], asked: Mapping[str, bool], M: int) -> None:
    """Give a reason for every metric without a value that has none yet."""
    for name in METRICS:
        if values.get(name) is not None or name in reasons:
            continue
        group = next((group for group, names in GROUPS.items() if name in names), None)
        if group is not None and not asked[group]:
            reasons[name] = ASK[group]
        elif FOLLOWS.get(name) in reasons:
            reasons[name] = reasons[FOLLOWS[name]]
        elif name in drift.METRICS:
            reasons[name] = "the weight, or the initial one, is zero"
        elif values.get("sv_max") == 0:
            reasons[name] = "the weight is zero"
        elif values.get("approximate"):
            reasons[name] = f"a spectrum of {M} eigenvalues per matrix is not computed (at most {spectrum.MAX_EXACT})"
        else:
            reasons[name] = "all elements are alike"
