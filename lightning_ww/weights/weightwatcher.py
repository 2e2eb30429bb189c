"""The numbers of a layer in the conventions of weightwatcher 0.7.7, for comparisons with it.

Its conventions differ from ours: eigenvalues of convolutions are halved; `norm` and `spectral_norm` are squares;
eigenvalues up to 1e-5 are left out of the fit; ranks are counted with float64's rounding, whatever the weight's dtype;
`sv_min` is the largest of the slices' smallest singular values; a failed fit has the value -1, and the warning
over-trained. A depthwise convolution has one matrix here, but a vector for each kernel position there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_ww._errors import NoValueError
from lightning_ww.weights.marchenko_pastur import fit_marchenko_pastur
from lightning_ww.weights.power_law import MIN_SMALL_TAIL, PowerLawFit, best_tail
from lightning_ww.weights.spectrum import NEGLIGIBLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_ww.weights.report import LayerReport

    Array = NDArray[np.float64]

FLOOR = 1e-5  # its EVALS_THRESH
WEAK = 1e-6  # its WEAK_RANK_LOSS_TOLERANCE
EPSILON = 1e-10
OVER_TRAINED, UNDER_TRAINED = 2.0, 6.0
FLOAT64 = float(np.finfo(np.float64).eps)


@np.errstate(all="ignore")  # squares of extreme weights leave the range of float64, as they do in weightwatcher
def weightwatcher_row(layer: LayerReport, index: int) -> dict[str, Any]:
    """A row of the data frame of ``WeightWatcher.analyze()``.

    Args:
        layer: A measured layer.
        index: The layer's position in the report. (weightwatcher itself numbers all modules.)
    """
    row: dict[str, Any] = {
        "layer_id": index,
        "name": layer.name.rsplit(".", 1)[-1],
        "longname": layer.name,
        "layer_type": _layer_type(layer),
        "N": layer.N,
        "M": layer.M,
        "Q": layer.N / layer.M,
        "rf": layer.slices,
        "num_evals": layer.num_eigenvalues,
        "has_esd": layer.spectrum is not None,
    }
    if layer.spectrum is None:
        return row | {"status": "failed", "alpha": -1.0, "D": -1.0, "sigma": -1.0, "xmin": -1.0, "num_pl_spikes": -1}
    halved = 0.5 if layer.is_convolution else 1.0
    spectrum = layer.spectrum
    least, most = spectrum.singular_values.min(), spectrum.singular_values.max()
    # below this ratio, weightwatcher counts float64's rounding as rank, and our Gram matrix has lost these digits
    is_exact = least**2 > NEGLIGIBLE * most**2
    singular = (spectrum.singular_values if is_exact else spectrum.above_rounding) * halved**0.5
    ev = np.sort(np.square(singular), axis=None)
    row |= _norms(singular, ev, layer.N) | _fit(ev)
    row["alpha_weighted"] = row["alpha"] * row["log_spectral_norm"]
    with np.errstate(all="ignore"):
        row["log_alpha_norm"] = float(np.log10(np.power(ev, row["alpha"]).sum()))
    row |= _erg(ev, layer.detx_num, row["num_pl_spikes"])
    if layer.mp_scale is not None:
        row |= _bulk(ev, layer)
    if layer.shuffled is not None:
        shuffled = np.sort(np.square(layer.shuffled), axis=None) * halved
        row["rand_distance"] = layer.rand_distance
        row["max_rand_eval"] = float(shuffled[-1])
        row["ww_softrank"] = layer.ww_softrank
        row["ww_maxdist"] = float(ev[-1] - shuffled[-1])
        row["num_traps"] = layer.correlation_traps  # weightwatcher's own counts beyond a fitted edge
        if layer.mp_scale is not None:
            row |= {f"rand_{name}": value for name, value in _bulk(shuffled, layer).items()}
    if layer.distance_from_init is not None:
        row["delta_W"] = layer.distance_from_init
    return row


def _layer_type(layer: LayerReport) -> str:
    if layer.is_embedding:
        return "embedding"
    return layer.kind.lower() if layer.is_convolution else "dense"


def _norms(singular: Array, ev: Array, N: int) -> dict[str, Any]:
    largest = float(ev[-1])
    p = ev / ev.sum() + EPSILON if largest > 0 else ev
    rank = int((np.sqrt(ev) > np.sqrt(largest) * N * FLOAT64).sum())
    with np.errstate(all="ignore"):
        return {
            "sv_max": float(singular.max()),
            "sv_min": float(singular.min(axis=1).max()),
            "lambda_max": largest,
            "norm": float(ev.sum()),
            "log_norm": float(np.log10(ev.sum())),
            "spectral_norm": largest,
            "log_spectral_norm": float(np.log10(largest)),
            "stable_rank": float(ev.sum() / largest) if largest > 0 else float("nan"),
            "matrix_rank": rank,
            "rank_loss": int((singular <= singular.max(axis=1, keepdims=True) * N * FLOAT64).sum()),
            "weak_rank_loss": int((ev < WEAK).sum()),
            "entropy": float(-(p * np.log(p)).sum() / np.log(rank + EPSILON)) if largest > 0 else float("nan"),
        }


def _fit(ev: Array) -> dict[str, Any]:
    fit = _weightwatcher_fit(ev[ev > FLOOR])
    if fit is None:
        failed: dict[str, Any] = dict.fromkeys(("alpha", "xmin", "D", "sigma", "num_pl_spikes"), -1.0)
        return failed | {"xmax": float(ev[-1]), "status": "failed", "warning": "over-trained"}
    warning = "over-trained" if fit.alpha < OVER_TRAINED else "under-trained" if fit.alpha > UNDER_TRAINED else ""
    return {
        "alpha": fit.alpha,
        "xmin": fit.xmin,
        "xmax": float(ev[-1]),
        "D": fit.ks_distance,
        "sigma": fit.alpha_stderr,
        "num_pl_spikes": int((ev >= fit.xmin).sum()),
        "status": "success",
        "warning": warning,
    }


def _weightwatcher_fit(x: Array) -> PowerLawFit | None:
    """Fit as weightwatcher does: our search without our refusal of narrow spectra; below 8 values, a fit to all of them."""
    n = x.size
    if n >= 2 and x[0] == x[-1]:  # weightwatcher's numbers for equal eigenvalues
        return PowerLawFit(0.0, float(x[0]), 1.0, n, -1 / n**0.5)
    if n >= MIN_SMALL_TAIL:
        return best_tail(x, narrowest=0.0)
    if n < 2:
        return None
    logs = np.log(x / x[0])
    slope = (n - 1) / float(logs.sum())
    distance = float(np.abs(-np.expm1(-slope * logs) - np.arange(n) / n).max())
    return PowerLawFit(1 + slope, float(x[0]), distance, n, slope / n**0.5)


def _erg(ev: Array, num: int | None, num_tail: int) -> dict[str, Any]:
    """The eigenvalue at which the product of the largest falls below 1; its two keys are swapped, as in weightwatcher."""
    if num is None:
        return {}
    value = float(ev[-num if num < ev.size else 1])  # weightwatcher never tries the whole spectrum
    return {
        "detX_num": num,
        "num_ERG_spikes": num,
        "ERG_gap": num - num_tail,
        "detX_val": value,
        "detX_val_unrescaled": value * ev.size / total if (total := float(ev.sum())) else float("nan"),
    }


def _bulk(ev: Array, layer: LayerReport) -> dict[str, Any]:
    try:
        fit = fit_marchenko_pastur(ev, layer.N, layer.M)
    except NoValueError:
        return {}
    return {
        "num_spikes": fit.num_spikes,
        "sigma_mp": fit.mp_scale,
        "mp_softrank": fit.mp_softrank,
        "W_scale": float(np.sqrt(ev.size / ev.sum())),
        "bulk_max": fit.bulk_max,
        "bulk_min": fit.bulk_min,
    }
