"""Small Lightning modules for the callbacks' tests."""

from __future__ import annotations

import random
from collections import Counter, deque
from typing import Any, ClassVar

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

Batch = tuple[Tensor, Tensor]


def data(
    samples: int = 96, *, batch_size: int = 16, seed: int = 0, shuffle: bool = True
) -> DataLoader[tuple[Tensor, ...]]:
    """Points about sixteen centers, shuffled by the global stream."""
    centers = torch.randn(16, 24, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(16, (samples,), generator=generator)
    points = torch.randn(samples, 24, generator=generator) + centers[labels]
    return DataLoader(TensorDataset(points, labels), batch_size=batch_size, shuffle=shuffle)


class Classifier(LightningModule):
    """Two layers and nothing else."""

    def __init__(self, lr: float = 0.05) -> None:
        super().__init__()
        self.lr = lr
        self.hidden = nn.Linear(24, 32)
        self.head = nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(torch.relu(self.hidden(x))))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Restless(nn.Module):
    """A parametrization that reading leaves a trace in: a buffer, the random streams, an attribute that it acts on."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.calls = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.count += 1
        if self.training:
            self.calls += 1
        noise = torch.rand(()) + random.random() + float(np.random.rand())
        return weight * (1 + 1e-3 * noise) * (1 + 1e-4 * self.count) * (1 + 1e-4 * self.calls)


class Meter:
    """A plain object that a step updates."""

    def __init__(self) -> None:
        self.count, self.values = 0, [0.0]

    def update(self, value: float) -> None:
        self.count += 1
        self.values[0] += value


class SlottedMeter:
    """Without a dictionary of attributes."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0.0


class Busy(Classifier):
    """Everything that a careless observer could disturb."""

    teacher: Tensor
    fired: ClassVar[Counter[str]] = Counter()  # of the class: what a module holds is put back after a probe

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(32)
        self.dropout = nn.Dropout(0.3)
        self.spectral = parametrizations.spectral_norm(nn.Linear(32, 32))
        self.older = nn.utils.spectral_norm(nn.Linear(32, 32))
        self.restless = nn.Linear(32, 32)
        parametrize.register_parametrization(self.restless, "weight", Restless())
        self.pruned = nn.Linear(32, 32)
        prune.l1_unstructured(self.pruned, "weight", 0.2)  # type: ignore[no-untyped-call]
        self.accuracy = MulticlassAccuracy(num_classes=16)
        self.losses: list[float] = []
        self.seen: dict[str, Any] = {"graphs": deque(maxlen=3), "labels": set(), "mean": torch.zeros(()), "steps": 0}
        self.counts = np.zeros(16)
        self.register_buffer("teacher", torch.zeros(32, 24))
        self.streams = (torch.Generator().manual_seed(1), np.random.default_rng(1), random.Random(1))
        self.critics = [nn.Sequential(nn.Linear(24, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))]  # no submodule
        self.leaves = [torch.zeros(4, requires_grad=True)]
        self.meter = Meter()
        self.census: Counter[int] = Counter()
        self.legacy_stream = np.random.RandomState(1)
        self.slotted = SlottedMeter()
        self.tape = bytearray(4)
        self.fixed = (
            torch.eye(3).to_sparse(),
            np.broadcast_to(np.zeros(1), (4,)),
            torch.tensor(float("nan")).expand(3),
        )
        self.say = self.log
        type(self).fired = Counter()
        self.head.weight.register_hook(self._count("weight"))  # type: ignore[no-untyped-call]
        self.norm.register_full_backward_hook(self._count("module"))

    def _count(self, kind: str) -> Any:
        def hook(*_: Any) -> None:
            type(self).fired[kind] += 1

        return hook

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.norm(self.hidden(x)))
        for layer in (self.spectral, self.older, self.restless, self.pruned):
            hidden = torch.relu(layer(hidden))
        return torch.as_tensor(self.head(hidden))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x = batch[0].to(self.hidden.weight.dtype) + 0.01 * random.random() + 0.01 * float(np.random.rand())
        torch_stream, numpy_stream, python_stream = self.streams
        x = (
            x
            + 0.01 * torch.rand((), generator=torch_stream)
            + 0.01 * numpy_stream.random()
            + 0.01 * python_stream.random()
        )
        logits = self(x)
        loss = nn.functional.cross_entropy(logits, batch[1])
        self.accuracy(logits, batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        self.log("train_accuracy", self.accuracy, on_epoch=True)
        self.say("stored", loss.detach(), on_epoch=True)
        self.losses.append(float(loss.detach()))
        self.meter.update(float(loss.detach()))
        self.census.update(batch[1].tolist())
        self.slotted.total += float(loss.detach()) + float(self.legacy_stream.rand())
        self.tape[0] = (self.tape[0] + 1) % 256
        (2 * self.leaves[0]).sum().backward()  # type: ignore[no-untyped-call]
        self.critics[0](batch[0].float())
        if not hasattr(self, "base"):
            self.register_buffer("base", torch.rand(3))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] *= 0.999
        self.seen["graphs"].append(loss)
        self.seen["labels"] |= set(batch[1].tolist())
        self.seen["mean"].mul_(0.9).add_(loss.detach().float(), alpha=0.1)
        self.seen["steps"] += 1
        np.add.at(self.counts, batch[1].numpy(), 1)
        with torch.no_grad():
            self.teacher.lerp_(self.hidden.weight.to(self.teacher.dtype), 0.1)
        if self.logger is not None:
            self.logger.log_metrics({"direct": float(loss.detach())}, step=self.trainer.global_step)
        batch[0].mul_(2)  # what becomes of a batch is the step's own affair
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


class Witness(Callback):
    """Writes down what a user could see of the run at every step, outside of our keys."""

    OURS = ("ww", "flags", "curvature", "gradients", "slt")

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        gradients = {name: p.grad for name, p in pl_module.named_parameters()}
        self.seen.append(
            {
                "step": trainer.global_step,
                "weights": {name: value.clone() for name, value in pl_module.state_dict().items()},
                "gradients": {name: None if g is None else g.clone() for name, g in gradients.items()},
                "versions": {name: p._version for name, p in pl_module.named_parameters()},
                "modes": [module.training for module in pl_module.modules()],
                "random": (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()),  # type: ignore[index]
                "metrics": {k: v for k, v in trainer.callback_metrics.items() if not k.startswith(self.OURS)},
                "flags": (torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(), np.geterr()),
                "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in pl_module.modules()],
            }
        )

    on_train_epoch_start = _write
    on_train_epoch_end = _write
    on_validation_end = _write
    on_train_end = _write

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._write(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._write(trainer, pl_module)


def quiet_trainer(**arguments: Any) -> Trainer:
    """A Trainer that writes nothing and shows nothing, unless told to."""
    defaults: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "max_epochs": 2,
        "log_every_n_steps": 1,
    }
    return Trainer(**(defaults | arguments))


class Growing(Classifier):
    """Gets a layer during training, and loses one."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.late = nn.Linear(20, 20)
        if self.current_epoch == 2:
            del self.late
