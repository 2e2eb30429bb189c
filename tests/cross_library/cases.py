"""The weights on which we are compared with weightwatcher, from a random stream that numpy has frozen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

SEED = 11
"""Of numpy's global stream, when weightwatcher shuffles."""


def _gauss(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(np.random.RandomState(sum(shape)).standard_normal(shape))


def _with_dead_rows() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    weight = _gauss(100, 64)
    weight[:, 5:12] = 0
    return weight


def _trained_like() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    left, right = _gauss(256, 40), _gauss(40, 300)
    return _gauss(256, 300) / 16 + left @ np.diag(np.arange(1, 41.0) ** -1.2) @ right / 16


WEIGHTS: dict[str, Callable[[], np.ndarray[tuple[int, ...], np.dtype[np.float64]]]] = {
    "linear_tall": lambda: _gauss(200, 80),
    "linear_wide": lambda: _gauss(60, 150),
    "linear_square": lambda: _gauss(128, 128),
    "linear_small": lambda: _gauss(12, 16),  # below 20 eigenvalues the estimator is another one
    "linear_smallest": lambda: _gauss(8, 16),
    "linear_heavy_tailed": lambda: np.random.RandomState(1).standard_t(3, (100, 150)),
    "linear_heavier_tailed": lambda: np.random.RandomState(2).standard_t(1.5, (150, 100)),
    "linear_low_rank": lambda: _gauss(100, 10) @ _gauss(10, 80),
    "linear_rank_5": lambda: _gauss(100, 5) @ _gauss(5, 80),
    "linear_orthogonal": lambda: np.linalg.qr(_gauss(60, 60))[0],
    "linear_dead_rows": _with_dead_rows,
    "linear_trained_like": _trained_like,
    "conv2d_1x1": lambda: _gauss(64, 32, 1, 1),
    "conv2d_2x2": lambda: _gauss(16, 32, 2, 2),  # theirs swaps N and M here
    "conv2d_3x3": lambda: _gauss(32, 16, 3, 3),
    "conv2d_5x3": lambda: _gauss(24, 24, 5, 3),
    "conv2d_depthwise": lambda: _gauss(32, 1, 3, 3),
    "conv2d_grouped": lambda: _gauss(32, 8, 3, 3),
    "conv1d": lambda: _gauss(32, 24, 5),  # theirs takes a Conv1d wrongly: it is given the Conv2d of kernel 5 × 1
    "conv3d": lambda: _gauss(16, 24, 3, 3, 2),  # … and of kernel 9 × 2
    "embedding": lambda: _gauss(100, 32),
}


def module(name: str) -> nn.Module:
    """A module with that weight, in float32."""
    weight = torch.tensor(WEIGHTS[name](), dtype=torch.float32)
    out, into, *kernel = weight.shape
    groups = {"conv2d_depthwise": 32, "conv2d_grouped": 4}.get(name, 1)
    layer: nn.Module
    if name == "embedding":
        layer = nn.Embedding(out, into)
    elif not kernel:
        layer = nn.Linear(into, out)
    else:
        kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
        layer = kinds[len(kernel)](into * groups, out, tuple(kernel), groups=groups)  # type: ignore[arg-type]
    layer.weight.data = weight
    return nn.Sequential(layer)


def module_for_weightwatcher(name: str) -> nn.Module:
    """The same, with convolutions that weightwatcher does not know written as the Conv2d of the same slices."""
    given = module(name)
    weight = given[0].weight.data  # type: ignore[index]
    if weight.ndim not in (3, 5):
        return given
    shape = (*weight.shape[:2], int(np.prod(weight.shape[2:-1])), weight.shape[-1])
    if weight.ndim == 3:
        shape = (*weight.shape, 1)
    layer = nn.Conv2d(shape[1], shape[0], shape[2:])
    layer.weight.data = weight.reshape(shape)
    return nn.Sequential(layer)


def weightwatcher_shuffle(
    slices: np.ndarray[tuple[int, ...], np.dtype[np.float64]], *, swapped: bool = False
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The shuffle from which weightwatcher takes rand_distance, when numpy's stream was seeded with `SEED` before.

    It shuffles each slice once to find the largest random eigenvalue (five times if there are fewer than 100), then
    once more for the distance. It lays a convolution's slices upright before.
    """
    if slices.shape[0] > 1 and slices.shape[1] < slices.shape[2]:
        return weightwatcher_shuffle(slices.transpose(0, 2, 1), swapped=slices.shape[0] % 2 == 0).transpose(0, 2, 1)
    stream = np.random.RandomState(SEED)
    side = max(slices.shape[1:]) if swapped else min(slices.shape[1:])  # it took N for M
    eigenvalues = slices.shape[0] * side
    for _ in range((5 if eigenvalues < 100 else 1) + 1):
        shuffled = [matrix.flatten() for matrix in slices]
        for flat in shuffled:
            stream.shuffle(flat)
    return np.stack(shuffled).reshape(slices.shape)
