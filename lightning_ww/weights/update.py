"""The update of a layer: its size and its stable rank since an earlier moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightning_ww._errors import NoValueError
from lightning_ww.weights.spectrum import largest_singular_value, singular_values

if TYPE_CHECKING:
    from lightning_ww.weights.elements import Elements

DECOMPOSED = 64
"""The short side up to which all singular values of an update take less time than its largest one by iteration."""

UNMOVED = "the weight did not move"
"""The reason for updates without a value."""


@dataclass(frozen=True)
class Update:
    """The change of a weight between two moments, over all slices."""

    update_relative: float | None  # ‖ΔW‖_F / ‖W‖_F; None if W = 0
    update_stable_rank: float  # Σλ / λ_max of ΔW, its slices pooled


def update_since(slices: Elements, before: Elements) -> Update:
    """Measure the update of a weight, from its largest singular value alone.

    Args:
        slices: The weight, shape ``(slices, rows, cols)``.
        before: The earlier weight, same shape.

    Raises:
        NoValueError: If the two are equal.
    """
    moved = np.subtract(slices, before, dtype=np.float64)
    scale = float(np.abs(moved).max())
    if scale == 0:
        raise NoValueError(UNMOVED)
    if not np.isfinite(scale):
        raise NoValueError("the earlier weight was not finite")
    moved /= scale  # squares of tiny updates would underflow
    squares = float(np.einsum("ijk,ijk->", moved, moved))
    if min(moved.shape[1:]) <= DECOMPOSED:
        largest = float(singular_values(moved, precise=True).max())
    else:
        largest = max(largest_singular_value(matrix) for matrix in moved)
    norm = float(np.einsum("ijk,ijk->", slices, slices, dtype=np.float64)) ** 0.5
    return Update(scale * squares**0.5 / norm if norm > 0 else None, max(squares / largest**2, 1.0))
