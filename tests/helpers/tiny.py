"""A module small enough for a dense Hessian, the batches that it trained on, and that Hessian."""

from __future__ import annotations

import copy
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from helpers.custom_functions import HiddenIntermediate, OnceDifferentiable
from helpers.networks import Batch


class Tiny(LightningModule):
    """Small enough for a dense Hessian; in float64 under `precision="64-true"`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.hidden = nn.Linear(24, 3)
        self.head = nn.Linear(3, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(torch.tanh(self.hidden(x))))

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Batches(Callback):
    """The batches of training, and the weights before each."""

    def __init__(self) -> None:
        self.seen: list[tuple[Batch, LightningModule]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        twin = type(pl_module)().to(next(pl_module.parameters()).dtype)
        twin.load_state_dict(pl_module.state_dict())
        self.seen.append((copy.deepcopy(batch), twin))


def exact(model: LightningModule, batches: list[Batch]) -> Tensor:
    """All eigenvalues of the mean loss's Hessian, by torch.autograd.functional on the flat weights."""
    named = dict(model.named_parameters())
    flat = torch.cat([p.detach().reshape(-1) for p in named.values()])

    def loss(w: Tensor) -> Tensor:
        parts = torch.split(w, [p.numel() for p in named.values()])
        weights = {name: part.view_as(p) for part, (name, p) in zip(parts, named.items(), strict=True)}
        x, y = (torch.cat([batch[i] for batch in batches]) for i in (0, 1))
        return functional.cross_entropy(torch.func.functional_call(model, weights, (x,)), y)

    H: Tensor = torch.autograd.functional.hessian(loss, flat)  # type: ignore[no-untyped-call]
    return torch.as_tensor(torch.linalg.eigvalsh(H))


class Custom(Tiny):
    function: Any = OnceDifferentiable

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(type(self).function.apply(self.hidden(x))))


class CustomHidden(Custom):
    function = HiddenIntermediate

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(3 * x)


class Checkpointed(Tiny):
    """Its hidden layer is computed again in the backward pass; its `reference` computes the loss plainly."""

    reentrant = False

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(lambda x: torch.tanh(self.hidden(x)), x.requires_grad_(), use_reentrant=self.reentrant)
        return torch.as_tensor(self.head(hidden))

    def reference(self, batch: Batch, batch_idx: int) -> Any:
        return functional.cross_entropy(super().forward(batch[0]), batch[1])
