"""The factor by which mixed precision has scaled the gradients that an optimizer will step with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_ww.callbacks._monitor.lightning import Trainer


def scale_of(trainer: Trainer, optimizer: Any) -> Tensor | None:
    """The scale as a 0-d tensor, which is not waited for; ``None``: the gradients are in their own unit.

    Lightning divides by it before `on_before_optimizer_step`, unless the optimizer does so itself, as fused ones do.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    is_scaled = scaler is not None and scaler.is_enabled() and getattr(optimizer, "_step_supports_amp_scaling", False)
    scale: Tensor | None = getattr(scaler, "_scale", None) if is_scaled else None
    return scale
