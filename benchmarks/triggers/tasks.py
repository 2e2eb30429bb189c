"""The networks, data and faults of suite A."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import declared
import torch
from declared import Setting
from pytorch_lightning import LightningModule
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

CONTEXT, VOCABULARY, WIDTH = 32, 96, 64
Data = tuple[TensorDataset, TensorDataset, TensorDataset]
"""For training, validation and test."""


def digits(seed: int) -> Data:
    """1,000 of scikit-learn's digits to train on, 300 to validate, 497 to test."""
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    images, labels = torch.tensor(x / 16, dtype=torch.float32)[order], torch.tensor(y)[order]
    parts = (slice(0, 1000), slice(1000, 1300), slice(1300, None))
    return tuple(TensorDataset(images[part], labels[part]) for part in parts)  # type: ignore[return-value]


def characters(seed: int) -> Data:
    """Pieces of Python's own source, with the next character at each place as labels."""
    text = inspect.getsource(argparse)
    codes = torch.tensor([min(max(ord(letter) - 31, 0), VOCABULARY - 1) for letter in text])
    pieces = codes[: len(codes) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1)
    pieces = pieces[torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed))]
    parts = (pieces[:1600], pieces[-400:-200], pieces[-200:])
    return tuple(TensorDataset(part[:, :-1], part[:, 1:]) for part in parts)  # type: ignore[return-value]


class NoNorm(nn.Identity):
    """In place of a layer norm; two with a different ``eps`` keep torch from its fused layer, which needs real ones."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps


class Transformer(nn.Module):
    """Two layers of attention that predict the next character."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.head = nn.Linear(WIDTH, VOCABULARY)
        for layer in self.layers if not norm else ():
            layer.norm1, layer.norm2 = NoNorm(0.0), NoNorm(1.0)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        hidden = self.words(x) + self.places.weight[: x.shape[1]]
        for layer in self.layers:
            hidden = layer(hidden, src_mask=mask, is_causal=True)
        return torch.as_tensor(self.head(hidden)).flatten(0, 1)


class LowRank(nn.Module):
    """A frozen layer with a trained product of two factors beside it, as LoRA has it."""

    def __init__(self, base: nn.Linear, rank: int = 16) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return torch.as_tensor(self.base(x) + 2 * self.lora_B(self.lora_A(x)))


def perceptron(*widths: int, norm: bool = False) -> nn.Sequential:
    """A perceptron of these widths."""
    parts: list[nn.Module] = []
    for a, b in pairwise(widths[:-1]):
        parts += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if norm else []), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(widths[-2], widths[-1]))


def convolutions(*, norm: bool) -> nn.Sequential:
    """Two convolutions, and two layers on what they find."""
    norms = [[nn.BatchNorm2d(width)] if norm else [] for width in (32, 64)]
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 32, 3, padding=1), *norms[0], nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), *norms[1], nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def pretrained(seed: int, data: Data) -> nn.Sequential:
    """A perceptron that was trained on the digits 0 to 4, with a new last layer."""
    network = perceptron(64, 128, 128, 10)
    images, labels = data[0].tensors
    images, labels = images[labels < 5], labels[labels < 5]
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(15):
        for some in torch.split(torch.randperm(len(labels)), 32):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(network(images[some]), labels[some]))
            optimizer.step()
    network[-1] = nn.Linear(128, 10)
    return network


def network_of(setting: Setting, seed: int, data: Data) -> nn.Module:
    """The network of a setting."""
    if setting.network == "perceptron":
        return perceptron(64, 128, 128, 128, 10, norm=setting.norm)
    if setting.network == "deep perceptron":
        return perceptron(64, *[64] * 8, 10)
    if setting.network == "convolutions":
        return convolutions(norm=setting.norm)
    if setting.network == "transformer":
        return Transformer(norm=setting.norm)
    network = pretrained(seed, data)
    if setting.network == "LoRA":
        network[0], network[2] = LowRank(network[0]), LowRank(network[2])  # type: ignore[arg-type]
    return network


class Task(LightningModule):
    """A run of suite A: its network, its optimizer, and its fault."""

    def __init__(self, setting: Setting, seed: int) -> None:
        super().__init__()
        self.setting, self.seed = setting, seed
        self.data = characters(seed) if setting.network == "transformer" else digits(seed)
        torch.manual_seed(seed)
        self.network = network_of(setting, seed, self.data)
        self.warms_up = setting.network == "transformer" and setting.norm

    @property
    def victim(self) -> nn.Parameter:
        """The weight of the layer that a fault is about."""
        return self.network.get_parameter(
            "layers.1.linear1.weight" if self.setting.network == "transformer" else "2.weight"
        )

    @property
    def has_begun(self) -> bool:
        """Whether the fault is there."""
        return bool(self.current_epoch >= declared.START)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: D102
        x, y = batch
        fault = self.setting.fault if self.has_begun else ""
        if fault == "labels":
            y = (x.sum(1) * 1e4).long() % 10  # as good as random, and the same at each epoch
        if fault == "inputs":
            x = 1 - x
        loss = nn.functional.cross_entropy(self.network(x), y.flatten())
        if fault == "l2":
            low, high = declared.L2
            strength = low * (high / low) ** (self.seed / (declared.SEEDS - 1))
            loss = loss + strength * self.victim.square().sum()
        return loss

    def on_train_batch_end(self, *_: Any) -> None:  # noqa: D102
        if self.setting.fault == "dies" and self.has_begun:
            with torch.no_grad():
                self.victim.mul_(1 - declared.DECAY)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: D102
        outputs, labels = self.network(batch[0]), batch[1].flatten()
        part = ("val", "test")[dataloader_idx]
        loss = nn.functional.cross_entropy(outputs, labels)
        accuracy = (outputs.argmax(1) == labels).float().mean()
        self.log_dict({f"{part}_loss": loss, f"{part}_accuracy": accuracy}, add_dataloader_idx=False)

    def configure_optimizers(self) -> Any:  # noqa: D102
        rate, fault = self.setting.rate, self.setting.fault
        trained = [p for p in self.parameters() if p.requires_grad]
        is_faster = fault == "explodes"
        others = [p for p in trained if not (is_faster and p is self.victim)]
        groups: list[dict[str, Any]] = [{"params": others}, *([{"params": [self.victim]}] if is_faster else [])]
        optimizer: torch.optim.Optimizer
        if self.setting.optimizer == "SGD":
            optimizer = torch.optim.SGD(groups, rate, momentum=0.9)
        elif self.setting.optimizer == "Adam":
            optimizer = torch.optim.Adam(groups, rate)
        else:
            optimizer = torch.optim.AdamW(groups, rate, weight_decay=3e-2)
        steps = len(self.train_dataloader())

        def usual(step: int) -> float:
            factor = min(1.0, (step + 1) / 100) if self.warms_up else 1.0
            ramp = float(fault.split()[1]) if fault.startswith("ramp") else 1.0
            return factor * ramp ** max(0, step // steps - declared.START + 1)

        def faster(step: int) -> float:
            return usual(step) * (declared.FASTER if step >= steps * declared.START else 1.0)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [usual, *([faster] if is_faster else [])])
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def train_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        return DataLoader(self.data[0], 32, shuffle=True)

    def val_dataloader(self) -> list[DataLoader[Any]]:  # noqa: D102
        return [DataLoader(part, 512) for part in self.data[1:]]

    @property
    def chance(self) -> float:
        """The accuracy of always saying the most frequent label."""
        labels = self.data[0].tensors[1].flatten()
        return int(torch.bincount(labels).max()) / len(labels)


def layers_of(network: nn.Module) -> Iterator[nn.Parameter]:
    """The trained weights with two axes or more."""
    return (p for p in network.parameters() if p.ndim > 1 and p.requires_grad)
