"""Refusals to measure: the errors of autograd that cause them, and the remedies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning_ww.callbacks._monitor.guard import RefusedError
from lightning_ww.callbacks._sandbox.loss import UnfitBatchError
from lightning_ww.curvature.operators import WrongDerivativeError
from lightning_ww.curvature.second_derivatives.self_check import first_line

OTHER_LOSS = "pass another `loss_fn=`"

UNCHECKPOINTED = "pass a `loss_fn=` that does not checkpoint"

NESTED = {
    matrix: "torch cannot differentiate nested tensors twice; pass a "
    f"`{name}=` that pads them before the layers that are measured"
    for matrix, name in (("hessian", "loss_fn"), ("ggn", "ggn_fn"))
}
"""The remedy for nested tensors, by the matrix."""

FIRST_ONLY = {
    "hessian": f'try `matrix="ggn"`, which needs first derivatives of the network only, or {OTHER_LOSS}',
    "ggn": "pass `ggn_fn=` with outputs and a loss of them that have derivatives, or leave the layer out with `params=`",
}
"""The remedy for operations without a second derivative, by the matrix: one that was not tried yet."""

ELSEWHERE = {
    "hessian": f"leave the layers out with `params=`, or {OTHER_LOSS}; `self_check=False` measures it as it is",
    "ggn": "leave the layers out with `params=`, or pass `ggn_fn=`; `self_check=False` measures it as it is",
}

REMEDIES: tuple[tuple[str, str | dict[str, str]], ...] = (
    ("use_reentrant", f"checkpoint with `use_reentrant=False` if there is no attention inside, or {UNCHECKPOINTED}"),
    (
        "once_differentiable",
        {"hessian": f"leave the layers out with `params=`, or {OTHER_LOSS}", "ggn": ELSEWHERE["ggn"]},
    ),
    (
        "not the same twice",
        "pass `loss_fn=` with a loss of weights and batch alone. What it depends on may have moved by "
        "now, so that this run is not the same as without the monitor",
    ),
    ("Recomputed values", f"{UNCHECKPOINTED}, or leave attention and weight norm out of the checkpoint"),
    ("does not depend on any", "the loss is detached from the parameters that are measured, or taken under `no_grad`"),
    ("only for real scalar outputs", "the outputs are complex: pass `ggn_fn=` with `torch.view_as_real` of them"),
    (
        "loss is detached",
        {
            "hessian": f"{ELSEWHERE['hessian']}. If a target network is trained along, name the parameters of the others "
            '(`params="net.*"`)',
            "ggn": ELSEWHERE["ggn"],
        },
    ),
    ("nested", NESTED),
    ("Nested", NESTED),
    ("ctc_loss", "no loss with CTC has second derivatives in torch: measure another loss with `loss_fn=`"),
    ("derivative for", FIRST_ONLY),
    ("double backward", FIRST_ONLY),
)
"""Pairs of words in an error and its remedy, which may depend on the matrix."""


@contextmanager
def what_helps(matrix: str) -> Iterator[None]:
    """Turn autograd's errors into refusals that name the remedy; other errors stay as they are.

    Args:
        matrix: The matrix that is measured, ``"hessian"`` or ``"ggn"``.

    Raises:
        RefusedError: If derivatives are wrong, or do not exist.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError, ValueError) as error:
        if isinstance(error, RefusedError | UnfitBatchError):
            raise
        sentence = first_line(error)
        for sign, remedy in REMEDIES:
            if sign in str(error):
                said = remedy if isinstance(remedy, str) else remedy[matrix]
                raise RefusedError(f"{sentence}: {said}") from error
        if isinstance(error, WrongDerivativeError):
            raise RefusedError(f"{sentence}: {ELSEWHERE[matrix]}") from error
        raise
