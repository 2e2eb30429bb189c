"""The user's loss, evaluated in the middle of a run without side effects. `sandbox` opens it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning_ww.callbacks._sandbox.batches import CapturedBatch, batch_size
from lightning_ww.callbacks._sandbox.loss import LossFn, OutputsFn, SandboxLoss
from lightning_ww.callbacks._sandbox.mute import BatchNormMode, EvaluationMode, muted
from lightning_ww.callbacks._sandbox.surroundings import objects_around
from lightning_ww.curvature.parameters import select_parameters

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer


@contextmanager
def sandbox(
    trainer: Trainer,
    pl_module: LightningModule,
    batches: Sequence[Any],
    *,
    params: str | Sequence[str] | None = None,
    loss_fn: LossFn | None = None,
    outputs_fn: OutputsFn | None = None,
    batch_norm: BatchNormMode = "eval",
    mode: EvaluationMode = "eval",
    seed: int = 0,
) -> Iterator[SandboxLoss]:
    """Evaluate the loss of a module on copies of its weights, and undo all other effects of the evaluation.

    While the sandbox is open, the module has the copies, also in backward passes, where checkpointed layers run again.

    Args:
        trainer: The Trainer, whose logging is silenced.
        pl_module: The module.
        batches: The batches on which the loss is evaluated: those of `KeptBatches`, or any that `training_step` takes.
        params: Names or patterns of the parameters to differentiate with respect to. Default: all that require gradients.
        loss_fn: ``(pl_module, batch) -> 0-d tensor``. Default: the module's `curvature_loss`, else its `training_step`.
        outputs_fn: ``(pl_module, batch) -> (outputs, loss of outputs)``. Default: the module's `curvature_outputs`, else
            the input of the single call of a usual loss function.
        batch_norm: Whether batch normalization uses its running statistics (``"eval"``, default) or the batch's
            (``"train"``).
        mode: Whether the module is in evaluation mode (``"eval"``, default), or in training mode except for dropout layers
            and batch normalization (``"train"``).
        seed: The seed of the global random streams in each evaluation. Default: ``0``.

    Yields:
        The loss, as a function of the copies in its ``params``.
    """
    with muted(trainer, pl_module, batch_norm, mode):
        chosen = select_parameters(pl_module, params)
        captured = [
            b if isinstance(b, CapturedBatch) else CapturedBatch.of(b, i, batch_size(b)) for i, b in enumerate(batches)
        ]
        around = objects_around(trainer, pl_module, loss_fn, outputs_fn)
        loss = SandboxLoss(pl_module, captured, list(chosen), loss_fn, outputs_fn, seed, around)
        with loss.copies_in_place():
            yield loss
