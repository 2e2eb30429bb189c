"""A model in, a `WeightReport` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from torch import Tensor, nn

from lightning_ww.weights import layers as matrices
from lightning_ww.weights.analysis import Shuffle, measure
from lightning_ww.weights.initial import initial_slices
from lightning_ww.weights.report import WeightReport
from lightning_ww.weights.shuffle import Shuffler


def analyze(
    model: nn.Module,
    *,
    layers: str | Sequence[str] | None = None,
    initial: nn.Module | Mapping[str, Tensor] | None = None,
    shuffle: Shuffle = "auto",
    seed: int = 0,
    include_frozen: bool = True,
    mp_fit: bool = False,
    cka: bool = False,
    floor: bool = False,
) -> WeightReport:
    """Measure the spectra of a model's weights.

    One decomposition per matrix, and at most one more for the same matrix with its elements shuffled. The model is only
    read: no flag, buffer, gradient or random stream of it or of the process is touched.

    Args:
        model: Any module.
        layers: Names or shell patterns (``"encoder.*"``) of the layers to measure. Default: all.
        initial: What the weights were, for the distances from it: a module of the same make, or its ``state_dict()``.
        shuffle: How the shuffled spectra are had: ``"exact"`` draws one shuffle and decomposes it; ``"analytic"``
            predicts it; ``"auto"`` (default) predicts it where the prediction differs from a draw by less than two
            draws differ (short side ≥ 256, light-tailed elements) and draws it elsewhere; ``"off"`` leaves out what
            needs it.
        seed: Of the shuffles. With the layer's name it fixes the permutation, so that curves move only with the
            layer. Default: ``0``.
        include_frozen: Whether layers without anything to train are measured too; otherwise they are reported as
            skipped.
        mp_fit: Also (default: not) fit a Marchenko–Pastur bulk: ``mp_scale``, ``bulk_min``, ``bulk_max``,
            ``num_spikes``, ``mp_softrank``.
        cka: Also (default: not) ``distance_from_init_cka``; needs ``initial``.
        floor: Also (default: not) ``rand_distance_floor``: two further shuffles per matrix.

    Returns:
        Layers in model order, and what was skipped with the reason.

    Raises:
        ValueError: If the model holds no matrix to measure, a pattern matches none, or an argument is out of its
            domain.

    Example:
        >>> report = analyze(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)))
        >>> [layer.name for layer in report.layers], [(skip.name, skip.reason) for skip in report.skipped]
        (['0'], [('2', 'too_small')])
        >>> report["0"].matrix_rank
        32
    """
    if shuffle not in get_args(Shuffle):
        raise ValueError(f"`analyze(shuffle=...)` expected one of {get_args(Shuffle)}, but got {shuffle!r}.")
    if floor and shuffle == "off":
        raise ValueError("`analyze(floor=True, shuffle='off')`: the floor is a distance between two shuffles.")
    found, skipped = matrices.find_layers(model, layers)
    matrices.require_a_matrix(model, found, skipped, "analyze")
    return measure(
        found,
        skipped,
        initial=None if initial is None else initial_slices(found, initial),
        shuffler=Shuffler(seed),
        shuffle=shuffle,
        include_frozen=include_frozen,
        mp_fit=mp_fit,
        cka=cka,
        floor=floor,
    )
