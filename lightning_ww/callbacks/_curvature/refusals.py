"""Refusals to measure: the errors of autograd that cause them, and the remedies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning_ww.callbacks._monitor.guard import RefusedError
from lightning_ww.curvature.operators import WrongDerivativeError
from lightning_ww.curvature.second_derivatives.self_check import first_line

FIRST_ONLY = 'try `matrix="ggn"`, which needs first derivatives of the network only, or pass another `loss_fn=`'

REMEDIES = (
    ("use_reentrant", "checkpoint with `use_reentrant=False`"),
    ("once_differentiable", "leave the layers out with `params=`, or pass another `loss_fn=`"),
    ("not the same twice", "pass `loss_fn=` with a loss of weights and batch alone, or `self_check=False`"),
    ("Recomputed values", "leave weight norm out of the checkpoint, or pass another `loss_fn=`"),
    ("does not depend on any", "the loss is detached from the parameters that are measured, or taken under `no_grad`"),
    ("derivative for", FIRST_ONLY),
    ("double backward", FIRST_ONLY),
)
"""Pairs of words in an error and its remedy."""

ELSEWHERE = "leave the layers out with `params=`, or pass another `loss_fn=`; `self_check=False` measures it as it is"


@contextmanager
def what_helps() -> Iterator[None]:
    """Turn autograd's errors into refusals that name the remedy; other errors stay as they are.

    Raises:
        RefusedError: If derivatives are wrong, or do not exist.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError, ValueError) as error:
        if isinstance(error, RefusedError):
            raise
        sentence = first_line(error)
        for sign, remedy in REMEDIES:
            if sign in str(error):
                raise RefusedError(f"{sentence}: {remedy}") from error
        if isinstance(error, WrongDerivativeError):
            raise RefusedError(f"{sentence}: {ELSEWHERE}") from error
        raise
