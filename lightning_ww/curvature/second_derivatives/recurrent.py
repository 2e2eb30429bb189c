"""Recurrent layers step by step: cuDNN's kernels have no second derivative."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Step = Callable[[Tensor, tuple[Tensor, ...], Sequence[Tensor]], tuple[Tensor, ...]]
"""One step of a cell, ``(x, states, weights) -> states``; the first state is the output."""


def lstm_step(x: Tensor, states: tuple[Tensor, ...], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """``c' = f c + i g``, ``h' = o tanh c'``."""
    h, c = states
    i, f, g, o = _gates(x, h, weights).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if len(weights) in (2, 4) else h @ weights[-1].T), c


def gru_step(x: Tensor, states: tuple[Tensor, ...], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """``h' = (1 - z) n + z h``."""
    (h,) = states
    of_x, of_h = x @ weights[0].T, h @ weights[1].T
    if len(weights) > 2:
        of_x, of_h = of_x + weights[2], of_h + weights[3]
    (r, z, n), (r_h, z_h, n_h) = of_x.chunk(3, -1), of_h.chunk(3, -1)
    r, z = (r + r_h).sigmoid(), (z + z_h).sigmoid()
    n = (n + r * n_h).tanh()
    return ((1 - z) * n + z * h,)


def tanh_step(x: Tensor, states: tuple[Tensor, ...], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """``h' = tanh(W x + U h)``."""
    return (_gates(x, states[0], weights).tanh(),)


def relu_step(x: Tensor, states: tuple[Tensor, ...], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """``h' = relu(W x + U h)``."""
    return (_gates(x, states[0], weights).relu(),)


def layers(
    step: Step,
    input: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    """All layers and directions over a padded sequence, with the arguments of ``torch.lstm`` and its like.

    Returns:
        The output, and the last states; without dropout between layers, which evaluation mode does not have.
    """
    if dropout and train:
        return NotImplemented
    directions = 2 if bidirectional else 1
    per = len(weights) // (num_layers * directions)
    sequence = input.transpose(0, 1) if batch_first else input
    last: list[tuple[Tensor, ...]] = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            own = weights[per * place : per * (place + 1)]
            now = tuple(state[place] for state in states)
            ys = []
            for x in sequence.flip(0) if direction else sequence:
                now = step(x, now, own)
                ys.append(now[0])
            last.append(now)
            outputs.append(torch.stack(ys[::-1] if direction else ys))
        sequence = torch.cat(outputs, -1)
    finals = [torch.stack(parts) for parts in zip(*last, strict=True)]
    return (sequence.transpose(0, 1) if batch_first else sequence), *finals


def _gates(x: Tensor, h: Tensor, weights: Sequence[Tensor]) -> Tensor:
    gates = x @ weights[0].T + h @ weights[1].T
    return gates if len(weights) < 4 else gates + weights[2] + weights[3]
