"""A network whose layer collapses for a while, how it is trained, and which pictures a run has."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import nn

from helpers.networks import Classifier, data, quiet_trainer


class Deep(Classifier):
    """Eight layers; the second loses half of its rank in epoch 2, and has it back in epoch 4."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(24, 32)
        self.middle = nn.Sequential(*(nn.Linear(32, 32) for _ in range(6)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(torch.relu(self.middle(torch.relu(self.hidden(x))))))

    def on_train_epoch_start(self) -> None:
        weight: Any = self.middle[0].weight
        with torch.no_grad():
            if self.current_epoch == 2:
                weight[10:] = 0
            elif self.current_epoch in (3, 4):
                torch.nn.init.normal_(weight[10:], std=0.0 if self.current_epoch == 3 else 0.1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.head.parameters(), lr=0.01)


def fit(*callbacks: Any, logger: Any, epochs: int = 6, model: LightningModule | None = None) -> Any:
    torch.manual_seed(0)
    trainer = quiet_trainer(callbacks=list(callbacks), logger=logger, max_epochs=epochs)
    trainer.fit(model or Deep(), data(), data(shuffle=False))
    return trainer


def images(folder: str | None) -> dict[str, list[int]]:
    """Steps, by tag."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}


def layouts(folder: str) -> list[layout_pb2.Layout]:
    events = EventAccumulator(folder).Reload()
    tags = [tag for tag in events.Tags()["tensors"] if tag == "custom_scalars__config__"]
    return [
        layout_pb2.Layout.FromString(event.tensor_proto.string_val[0]) for tag in tags for event in events.Tensors(tag)
    ]
