"""What is read of the curvature, and how, as the user asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_ww.callbacks._curvature.landscapes import When
from lightning_ww.callbacks._sandbox.loss import LossFn, OutputsFn
from lightning_ww.callbacks._sandbox.mute import BatchNormMode, EvaluationMode
from lightning_ww.curvature.krylov import Storage

Matrix = Literal["hessian", "ggn"]


@dataclass(frozen=True)
class Settings:
    """The monitor's arguments that determine what is read, and how."""

    matrix: Matrix
    params: Sequence[str] | None
    loss_fn: LossFn | None
    outputs_fn: OutputsFn | None
    batch_norm: BatchNormMode
    mode: EvaluationMode
    num_probes: int
    seed: int
    storage: Storage
    self_check: bool
    preconditioned: bool  # whether Lanczos is run also for an optimizer's preconditioner
    landscape: When = None  # when losses are evaluated along directions
    blocks: Sequence[str] | None = None  # patterns of the parameters of diagonal blocks
