"""What is unusual about a measurement of the curvature, in words: each cause is told once in a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from lightning_ww._errors import ArgumentError
from lightning_ww._torch import plain_name
from lightning_ww.callbacks._monitor.sentences import listed
from lightning_ww.callbacks._sandbox.rollback import MOST, MOST_BYTES
from lightning_ww.curvature.parameters import select_parameters

if TYPE_CHECKING:
    from lightning_ww.callbacks._curvature.findings import Reading

FEWEST_STEPS = 10
"""The number of Lanczos steps below which the advice is not to take fewer."""


def faster(monitor: Any, module: nn.Module) -> list[str]:
    """What would make the monitor's measurements faster."""
    advice = [f"lower `num_steps` ({monitor.num_steps})"] if monitor.num_steps > FEWEST_STEPS else []
    advice += [f"lower `num_probes` ({monitor.num_probes})"] if monitor.num_probes > 1 else []
    advice += [f"lower `num_batches` ({monitor.num_batches})"] if monitor.num_batches > 1 else []
    advice += ["name fewer `blocks`"] if monitor.blocks else []
    try:
        measured = {id(parameter) for parameter in select_parameters(module, monitor.params).values()}
    except ArgumentError:  # none is trained any more
        measured = set()
    recurrent = [part for part in module.modules() if isinstance(part, nn.LSTM)]
    if any(id(parameter) in measured for part in recurrent for parameter in part.parameters()):
        advice.append("leave out the LSTMs with `params=` (a product through one takes about ten gradients)")
    return advice or (["pass a smaller batch as `data=`"] if monitor.data is None else [])


def remarks(
    reading: Reading, module: nn.Module, unfit: Sequence[str], is_limited: bool, step: int, known: int | None
) -> Iterator[tuple[str, str]]:
    """Tell what a user would not expect of this reading.

    Args:
        reading: The reading.
        module: The module.
        unfit: The reasons why batches were left out.
        is_limited: Whether the module holds more objects than are restored.
        step: The step.
        known: The number of parameters at the last measurement, or ``None``.

    Yields:
        The cause, and a sentence that goes on after the monitor's name.
    """
    if unfit:
        yield (
            "unfit batch",
            f"measures from a later batch on: {len(unfit)} could not be measured. Of the first: {unfit[0]}",
        )
    if reading.num_samples is None:
        yield (
            "batch size",
            "cannot tell the size of its batches, whose tensors disagree on it or are none, so it weights all batches "
            "equally and logs no `batch_size`. Pass `batch_size_fn=`, a function `batch -> int`.",
        )
    if reading.left_out:
        names = listed([plain_name(name) for name in reading.left_out], most=3)
        yield "left out", f"leaves out {names}: the loss does not depend on them."
    if is_limited:
        yield (
            "limited",
            f"does not undo what a step does to the contents of this module beyond {MOST:,} objects and "
            f"{MOST_BYTES // 2**20} MiB. If it changes them, pass `loss_fn=`.",
        )
    scaled = [name for name, part in module.named_modules() if getattr(part, "scale_grad_by_freq", False)]
    if scaled:
        yield (
            "scale_grad_by_freq",
            f"measures the loss's own curvature: `{plain_name(scaled[0])}` scales its gradients (`scale_grad_by_freq`), which "
            "is no derivative of the loss.",
        )
    if known is not None and known != reading.density.dim:
        dim = reading.density.dim
        yield f"num_parameters {dim}", f"measures {dim:,} parameters from step {step} on, after {known:,}."
