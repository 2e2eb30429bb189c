"""The analysis of layers into a `WeightReport`: each is read, decomposed once, and compared with its shuffle."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError, NoValueError
from lightning_ww._threads import OWN
from lightning_ww.weights.attention import attention_heads
from lightning_ww.weights.ingredients import Ingredients, Request
from lightning_ww.weights.initial import initial_slices
from lightning_ww.weights.layers import Layer, Stacked, find_layers, nothing_to_measure
from lightning_ww.weights.metric import Metric, Need
from lightning_ww.weights.metrics import TABLE, needing
from lightning_ww.weights.report import LayerReport, WeightReport
from lightning_ww.weights.shuffle import Shuffler
from lightning_ww.weights.shuffled import Shuffle
from lightning_ww.weights.slices import SkippedLayer, UnreadableWeightError, Weight, check_size
from lightning_ww.weights.unchanged import Unchanged
from lightning_ww.weights.update import UNMOVED

if TYPE_CHECKING:
    from typing import Any

LEVERS: Mapping[Need, str] = {
    "mp_fit": "not asked for (`mp_fit=True`)",
    "floor": "not asked for (`floor=True`)",
    "cka": "not asked for (`cka=True`)",
    "bootstrap": "not asked for (`bootstrap=100`)",
    "initial": "no initial weights were given (`initial=`)",
    "attention": "not asked for (`attention=True`)",
    "previous": "no earlier weights were given (`previous=`)",
    "shuffle": "not asked for (`shuffle='off'`)",
}
"""For each input of metrics, the reason if it was not requested, with the argument of `analyze` that requests it."""

SIDE_BY_SIDE = (128, 4096)
"""The short sides of layers of which several are measured at a time."""


def analyze(
    model: nn.Module,
    *,
    layers: str | Sequence[str] | None = None,
    initial: nn.Module | Mapping[str, Tensor] | None = None,
    previous: nn.Module | Mapping[str, Tensor] | None = None,
    shuffle: Shuffle = "auto",
    seed: int = 0,
    include_frozen: bool = True,
    split: str | Sequence[str] | None = None,
    stacked: Stacked = "pooled",
    mp_fit: bool = False,
    cka: bool = False,
    floor: bool = False,
    attention: bool = False,
    bootstrap: int = 0,
) -> WeightReport:
    """Measure the spectra of a model's weights.

    This takes one decomposition per matrix, and at most one more for its shuffle, which has the same elements in random
    order. The model is only read: its flags, buffers and gradients and the process's random streams are not touched.

    Args:
        model: Any module.
        layers: Names or shell patterns (``"encoder.*"``) of the layers to measure. Default: all.
        initial: The weights from which distances are measured: a module of equal architecture, or its ``state_dict()``.
            Default: ``None``, no distances.
        previous: The weights of an earlier moment, in the same form, for ``update_relative`` and ``update_stable_rank``.
            Default: ``None``, no updates.
        shuffle: How the shuffles' spectra are made: ``"exact"`` draws a shuffle and decomposes it; ``"analytic"``
            predicts its spectrum; ``"auto"`` (default) predicts it where the prediction differs from a draw by less than
            two draws differ from each other (short side ≥ 256, light-tailed elements) and draws it elsewhere; ``"off"``
            leaves out the metrics that need a shuffle.
        seed: The seed of the shuffles. With the layer's name it fixes the permutation, so that numbers change only with
            the layer. Default: ``0``.
        include_frozen: Whether layers without trainable parameters are measured, too; otherwise they are reported as
            skipped. Default: ``True``.
        split: Names or patterns of weights that hold queries, keys and values together (GPT-2's ``"*.c_attn"``, timm's
            ``"*.qkv"``): each is analyzed as three layers, ``….q``, ``….k`` and ``….v``. Default: ``None``, none.
        stacked: Whether a weight of three axes that is no convolution's, as the experts of a mixture are held, is one layer
            with the eigenvalues of all its matrices (``"pooled"``, default), or a layer for each matrix, ``….0``, ``….1``
            and so on (``"each"``).
        mp_fit: Whether to fit a Marchenko–Pastur bulk: ``mp_scale``, ``bulk_min``, ``bulk_max``, ``num_spikes``,
            ``mp_softrank``. Default: ``False``.
        cka: Whether to measure ``distance_from_init_cka``; needs ``initial``. Default: ``False``.
        floor: Whether to measure what noise reads: ``rand_distance_floor``, by a further shuffle per matrix,
            ``alpha_hill_null`` and ``alpha_hill_null_sd``. Default: ``False``.
        attention: Whether to measure ``attention_logit_scale`` of layers of queries. Attention modules are recognized by the
            names of their layers (``q_proj`` and ``k_proj``, ``query`` and ``key`` …; fused ones with ``split``) and their
            number of heads. Default: ``False``.
        bootstrap: The number of draws for ``alpha_bootstrap_stderr``, each as long as a fit; 100 will do. Default: ``0``,
            none.

    Returns:
        The report on the layers, in model order, and the skipped layers with reasons.

    Raises:
        ArgumentError: If the model has no matrix to measure, a pattern matches nothing, or an argument is out of its
            domain. It is a `ValueError`.

    Example:
        >>> report = analyze(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)))
        >>> [layer.name for layer in report.layers], [(skip.name, skip.reason) for skip in report.skipped]
        (['0'], [('2', 'too_small')])
        >>> report["0"].matrix_rank
        32
    """
    if not isinstance(model, nn.Module):
        raise _checks.unfit_object("analyze", "model", "a module", f"a `{type(model).__name__}`")
    for name, flag in (
        ("include_frozen", include_frozen),
        ("mp_fit", mp_fit),
        ("cka", cka),
        ("floor", floor),
        ("attention", attention),
    ):
        _checks.instance("analyze", name, flag, bool)
    _checks.choice("analyze", "shuffle", shuffle, get_args(Shuffle))
    _checks.choice("analyze", "stacked", stacked, get_args(Stacked))
    _checks.count("analyze", "seed", seed, least=0)
    _checks.count("analyze", "bootstrap", bootstrap, least=0)
    if floor and shuffle == "off":
        raise ArgumentError("`analyze(floor=True, shuffle='off')`: the floor is a distance between two shuffles.")
    matrices, skipped = find_layers(model, layers, split=split, stacked=stacked)
    if nothing := nothing_to_measure(model, matrices, skipped):
        raise ArgumentError(f"`analyze` found {nothing}")
    request = Request(
        Shuffler(seed),
        shuffle,
        None if initial is None else initial_slices(matrices, initial, split=split, stacked=stacked),
        None if previous is None else initial_slices(matrices, previous, "previous", split=split, stacked=stacked),
        attention_heads(model, matrices) if attention else None,
        mp_fit=mp_fit,
        cka=cka,
        bootstrap=bootstrap,
        floors=None if floor else {},
    )
    return measure(read(matrices, include_frozen=include_frozen), skipped, request)


def read(
    layers: Sequence[Layer], *, include_frozen: bool, copies: bool = False, outlines: bool = False
) -> Iterator[Weight | SkippedLayer]:
    """Read the weights of layers, one after the other.

    Args:
        layers: The layers.
        include_frozen: Whether layers without trainable parameters are measured, too.
        copies: Whether to copy weights that are on the CPU already, so that later steps of training do not change them.
            Default: ``False``.
        outlines: Whether weights that are spread over several processes are given as zeros of their shape, rather than
            skipped. Default: ``False``.

    Yields:
        A weight, or the reason why it is skipped.
    """
    for layer in layers:
        try:
            slices = layer.outline() if outlines and layer.is_sharded else layer.read()
            if not include_frozen and layer.is_frozen:
                raise UnreadableWeightError("frozen", "nothing in this layer is trained")
            check_size(slices)
            facts = (layer.name, layer.kind, layer.is_embedding, layer.is_convolution, layer.is_frozen)
            weight = Weight(*facts, slices, layer.is_factor)
            yield on_host(weight, copy=copies)
        except Exception as error:  # an error in one layer must not stop the analysis of the others
            yield skip(layer.name, error)


def on_host(weight: Weight | SkippedLayer, *, copy: bool) -> Weight | SkippedLayer:
    """Bring a weight to the CPU; as a copy, if asked, so that later steps of training do not change it."""
    return replace(weight, slices=weight.slices.to("cpu", copy=copy)) if isinstance(weight, Weight) else weight


def measure(
    weights: Iterable[Weight | SkippedLayer],
    skipped: Sequence[SkippedLayer],
    request: Request,
    levers: Mapping[Need, str] = LEVERS,
    unchanged: Unchanged | None = None,
) -> WeightReport:
    """Measure these weights.

    Args:
        weights: The weights, and those that could not be read.
        skipped: The weights that are skipped without being read.
        request: The options of the analysis.
        levers: The reasons for metrics without a value, in terms of the caller's arguments. Default: those of `analyze`.
        unchanged: The reports of the last measurement, which layers with the same weight keep. Default: ``None``, each is
            measured.
    """
    began = time.perf_counter()
    results = _side_by_side(weights, lambda weight: _measured(weight, request, levers, unchanged))
    reports = tuple(result for result in results if isinstance(result, LayerReport))
    skips = tuple(result for result in results if isinstance(result, SkippedLayer))
    return WeightReport(reports, (*skipped, *skips), time.perf_counter() - began)


def _side_by_side(
    weights: Iterable[Weight | SkippedLayer], measured: Callable[[Weight], LayerReport | SkippedLayer]
) -> list[LayerReport | SkippedLayer]:
    """Measure the layers in order, as many large ones at a time as torch may use threads in this process.

    Each has one thread. Layers whose decomposition takes no time stay on the calling thread, since they would only wait for
    Python's lock; of the largest, one at a time is in memory.
    """
    results: list[LayerReport | SkippedLayer | Future[LayerReport | SkippedLayer]] = []
    most = torch.get_num_threads()
    with ThreadPoolExecutor(most, thread_name_prefix=OWN) as pool:
        running: deque[Future[LayerReport | SkippedLayer]] = deque()
        for weight in weights:
            if isinstance(weight, SkippedLayer):
                results.append(weight)
            elif most == 1 or not SIDE_BY_SIDE[0] <= min(weight.slices.shape[1:]) <= SIDE_BY_SIDE[1]:
                results.append(measured(weight))
            else:
                if len(running) == most:  # no more weights are read than can be measured
                    wait([running.popleft()])
                running.append(future := pool.submit(measured, weight))
                results.append(future)
    return [result.result() if isinstance(result, Future) else result for result in results]


def _measured(
    weight: Weight, request: Request, levers: Mapping[Need, str], unchanged: Unchanged | None
) -> LayerReport | SkippedLayer:
    def measured() -> LayerReport:
        with np.errstate(all="ignore"):  # a metric that overflows gets a reason instead of a value
            return _measure_layer(weight, request, levers)

    try:
        if unchanged is None:
            return measured()
        return unchanged.report(weight, request.options(weight.name), measured, partial(_unmoved, request))
    except Exception as error:  # an error in one layer must not stop the analysis of the others
        return skip(weight.name, error)


def _unmoved(request: Request, report: LayerReport) -> LayerReport:
    """The last report of a layer whose weight is the same."""
    if request.previous is None:
        return report
    reasons = {**report.reasons, **dict.fromkeys(needing("previous"), UNMOVED)}
    none: dict[str, Any] = dict.fromkeys(needing("previous"))
    return replace(report, reasons=reasons, **none)


def skip(name: str, error: Exception) -> SkippedLayer:
    """The record of a layer that an error has kept from being analyzed."""
    if isinstance(error, UnreadableWeightError):
        return SkippedLayer(name, error.reason, error.sentence)
    return SkippedLayer(name, "failed", f"{type(error).__name__}: {error}")


def _measure_layer(weight: Weight, request: Request, levers: Mapping[Need, str]) -> LayerReport:
    ingredients = Ingredients(weight.name, weight.slices, request)
    numbers: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for name, metric in TABLE.items():
        try:
            numbers[name] = _number(metric, ingredients, weight.name, request, reasons, levers)
        except NoValueError as none:
            reasons[name] = str(none)
    has_spectrum, has_shuffle = not ingredients.is_approximate, request.shuffle != "off"
    compared = has_spectrum and has_shuffle and not ingredients.is_vector
    return LayerReport(
        name=weight.name,
        kind=weight.kind,
        N=ingredients.N,
        M=ingredients.M,
        slices=weight.slices.shape[0],
        dtype=str(weight.slices.dtype).removeprefix("torch."),
        is_embedding=weight.is_embedding,
        is_convolution=weight.is_convolution,
        is_frozen=weight.is_frozen,
        is_factor=weight.is_factor,
        zero_share=ingredients.zero_share,
        approximate=ingredients.is_approximate,
        shuffle=ingredients.shuffle.way if compared else "off",
        reasons=reasons,
        spectrum=ingredients.own_spectrum if has_spectrum else None,
        shuffled=ingredients.shuffled * ingredients.unit if compared else None,
        kept_shuffle=ingredients.shuffle.to_keep if compared else None,
        trap_eigenvalues=ingredients.traps * ingredients.unit * ingredients.unit
        if "correlation_traps" in numbers
        else None,
        **numbers,
    )


def _number(
    metric: Metric,
    ingredients: Ingredients,
    layer: str,
    request: Request,
    reasons: Mapping[str, str],
    levers: Mapping[Need, str],
) -> float:
    """One metric of one layer.

    Raises:
        NoValueError: If the metric has no value; the message is the reason.
    """
    for need in metric.needs:
        if not request.asks_for(need, layer):
            raise NoValueError(levers[need])
    if metric.follows is not None and metric.follows in reasons:
        raise NoValueError(reasons[metric.follows])
    value = metric.of(ingredients)
    if value is None:
        raise NoValueError(metric.absent)
    if isinstance(value, float) and not np.isfinite(value):
        raise NoValueError(f"not finite ({value})")
    return value
