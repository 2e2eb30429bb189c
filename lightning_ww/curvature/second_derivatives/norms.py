"""Normalization by statistics of the input, written out: torch's own has a wrong third derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def standardized(input: Tensor, dims: list[int], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """``(x - mean)/√(var + eps)`` over some dimensions, with mean and biased variance."""
    mean = input.mean(dims, keepdim=True)
    shifted = input - mean
    variance = shifted.square().mean(dims, keepdim=True)
    return shifted * (variance + eps).rsqrt(), mean, variance


def batch_statistics_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Any:
    """Batch normalization by the batch's own statistics, with which the running ones are updated."""
    dims = [axis for axis in range(input.ndim) if axis != 1]
    count = input.numel() // max(input.shape[1], 1)
    if input.ndim < 2 or count < 2:
        return NotImplemented  # torch says what is wrong
    scaled, mean, variance = standardized(input, dims, eps)
    _update(running_mean, running_var, mean.flatten(), variance.flatten() * count / (count - 1), momentum)
    return _affine(scaled, weight, bias)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Any:
    """Instance normalization by each instance's own statistics, with whose means the running ones are updated."""
    dims = list(range(2, input.ndim))
    count = input[:1, :1].numel()
    if not dims or count < 2:
        return NotImplemented
    scaled, mean, variance = standardized(input, dims, eps)
    means, variances = mean.flatten(1).mean(0), variance.flatten(1).mean(0) * count / (count - 1)
    _update(running_mean, running_var, means, variances, momentum)
    return _affine(scaled, weight, bias)


def _affine(scaled: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = [-1 if axis == 1 else 1 for axis in range(scaled.ndim)]
    scaled = scaled if weight is None else scaled * weight.view(shape)
    return scaled if bias is None else scaled + bias.view(shape)


def _update(
    running_mean: Tensor | None, running_var: Tensor | None, mean: Tensor, variance: Tensor, momentum: float
) -> None:
    with torch.no_grad():
        for running, value in ((running_mean, mean), (running_var, variance)):
            if running is not None:
                running.lerp_(value.detach().to(running.dtype), momentum)
