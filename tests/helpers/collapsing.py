"""A callback that takes a layer's rank away, and a network that does not move."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from helpers.networks import Classifier


class Collapse(Callback):
    """Takes a layer's rank away at the start of these epochs, and gives it back at the start of the others."""

    def __init__(self, *epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with torch.no_grad():
            weight: Any = pl_module.hidden.weight  # type: ignore[union-attr]
            if trainer.current_epoch in self.epochs:
                weight.zero_()
                weight[:, 0] = 1.0
                weight.requires_grad_(True)
            else:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))


class Still(Classifier):
    """Does not move, so that what the test plants stays."""

    def __init__(self) -> None:
        super().__init__(lr=0.0)
