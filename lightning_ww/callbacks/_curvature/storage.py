"""The storage of a Krylov basis, and whether it fits into the memory that is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import torch

from lightning_ww._memory import available_bytes
from lightning_ww.curvature.krylov import Storage

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import Trainer
    from lightning_ww.curvature.operators import CurvatureOperator

SHARE = 1 / 2
"""The part of the memory left that a basis may take; the rest is for the products and for training."""


def basis_bytes(storage: Storage, steps: int, size: int, dtype: torch.dtype) -> int:
    """The memory of a basis of ``steps`` vectors with ``size`` elements of this type."""
    whole, most = size * dtype.itemsize, min(steps, size)
    return {"full": most * whole, "half": most * size * 2 + 2 * whole, "none": 2 * whole}[storage]


def fitting_storage(trainer: Trainer, operator: CurvatureOperator, steps: int, wanted: Storage) -> tuple[Storage, str]:
    """Choose the first storage, from the one that is wanted on, whose basis fits on all processes; a collective call.

    Returns:
        The storage, and a sentence if it is another than the one that is wanted, else ``""``. ``"none"`` is taken whether
        or not it fits.
    """
    kinds = get_args(Storage)
    left = available_bytes(operator.device)
    if left is not None and operator.device.type == "cpu":  # the processes of a machine share it
        left //= max(1, trainer.num_devices)
    first, size = kinds.index(wanted), operator.shape[0]
    needed = basis_bytes(wanted, steps, size, operator.dtype)
    for storage in kinds[first:]:
        fits = left is None or basis_bytes(storage, steps, size, operator.dtype) <= SHARE * left
        if trainer.strategy.reduce_boolean_decision(fits, all=True):
            break
    if storage == wanted:
        return wanted, ""
    have = "" if left is None else f", and {_gigabytes(left)} are left"
    return storage, (
        f'measures with `storage="{storage}"` from now on: a basis of {steps} vectors of {size:,} parameters '
        f'would take {_gigabytes(needed)} with `storage="{wanted}"`{have}.'
    )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2g} GB"
