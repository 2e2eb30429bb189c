"""The user's loss, evaluated in mid-run without a trace. `sandbox` is the one way in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightning_ww.callbacks._sandbox.loss import LossFn, OutputsFn, SandboxLoss
from lightning_ww.callbacks._sandbox.mute import BatchNormMode, muted
from lightning_ww.curvature.parameters import select_parameters

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer
    from lightning_ww.callbacks._sandbox.batches import CapturedBatch


@contextmanager
def sandbox(
    trainer: Trainer,
    pl_module: LightningModule,
    batches: Sequence[CapturedBatch],
    *,
    params: str | Sequence[str] | None = None,
    loss_fn: LossFn | None = None,
    outputs_fn: OutputsFn | None = None,
    batch_norm: BatchNormMode = "eval",
    seed: int = 0,
) -> Iterator[SandboxLoss]:
    """Evaluate the loss of a module on copies of its weights; what the evaluation does besides is undone.

    While it is open, the module holds the copies, also for backward passes: checkpointed layers are computed again in them.

    Args:
        trainer: The Trainer, whose logging is silenced.
        pl_module: The module.
        batches: What the loss is measured on.
        params: Names or patterns of the parameters to differentiate by. Default: all that require gradients.
        loss_fn: ``(pl_module, batch) -> 0-d tensor``. Default: the module's `curvature_loss`, else its `training_step`.
        outputs_fn: ``(pl_module, batch) -> (outputs, loss of outputs)``. Default: the module's `curvature_outputs`, else
            what a usual loss function is called with.
        batch_norm: Whether batch normalization uses its running statistics (``"eval"``) or the batch's (``"train"``).
        seed: Where the global random streams start in each evaluation.

    Yields:
        The loss, a function of the copies in its ``params``.
    """
    with muted(trainer, pl_module, batch_norm):
        chosen = select_parameters(pl_module, params)
        loss = SandboxLoss(pl_module, batches, list(chosen), loss_fn, outputs_fn, seed)
        with loss.copies_in_place():
            yield loss
