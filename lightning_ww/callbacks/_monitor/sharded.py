"""Parameters that no process holds whole, seen by the parameters themselves, whatever the strategy is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_ww.callbacks._monitor.guard import RefusedError

if TYPE_CHECKING:
    from torch import nn

STRATEGIES = ("DeepSpeedStrategy", "XLAFSDPStrategy")
"""Strategies whose shards look like plain parameters, also those of their subclasses."""


def refuse_sharded(module: nn.Module, strategy: type, subject: str = "the curvature") -> None:
    """Raise `RefusedError` if a parameter is sharded: a DTensor, a part of FSDP's flat one, or without values.

    Args:
        module: The module.
        strategy: The class of the Trainer's strategy.
        subject: What is not measured, in words. Default: ``"the curvature"``.
    """
    is_flat = any(type(part).__name__ == "FullyShardedDataParallel" for part in module.modules())
    parameters = list(module.parameters())
    is_sharded = any(hasattr(p, "full_tensor") or hasattr(p, "_is_flat_param") or p.is_meta for p in parameters)
    if is_flat or is_sharded or any(kind.__name__ in STRATEGIES for kind in strategy.__mro__):
        raise RefusedError(
            f"Under `{strategy.__name__}` no process holds the parameters whole (FSDP, tensor parallel). Train on one device "
            f"or by DDP to see {subject}"
        )
