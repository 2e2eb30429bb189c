"""The networks whose curvature the benchmarks measure, each with a batch; at initialization, on random data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        same = stride == 1 and inside == width
        self.shortcut = nn.Identity() if same else nn.Conv2d(inside, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add, then rectify."""
        return torch.relu(self.body(x) + self.shortcut(x))


class Attention(nn.Module):
    """Causal, with residuals and a perceptron; written out, as every peer needs it."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.register_buffer("mask", torch.full((length, length), float("-inf")).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        """Attend, then think."""
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(self.first(x)).chunk(3, -1)
        )
        scores = q @ k.mT / (width / self.heads) ** 0.5 + self.mask
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))
        return torch.as_tensor(x + self.mlp(self.second(x)))


class GPT(nn.Module):
    """Four layers of width 128 with tied embeddings."""

    def __init__(self, vocabulary: int = 512, width: int = 128, depth: int = 4, length: int = 128) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Attention(width, 4, length) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, ``(batch · length, vocabulary)``."""
        places = self.places(torch.arange(x.shape[1]))
        return torch.as_tensor(self.head(self.norm(self.blocks(self.tokens(x) + places))).flatten(0, 1))


def residual_network(widths: list[int], per_stage: int) -> nn.Sequential:
    """A ResNet for small images; three blocks of 16, 32 and 64 channels are a ResNet-20."""
    blocks, inside = [], widths[0]
    for stage, width in enumerate(widths):
        for i in range(per_stage):
            blocks.append(Block(inside, width, 2 if stage and not i else 1))
            inside = width
    stem = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 10))


def network(name: str) -> tuple[nn.Module, Batch]:
    """``"cnn"``, ``"wide resnet"`` or ``"gpt"``, in evaluation mode, and its batch."""
    torch.manual_seed(0)
    if name == "gpt":
        return GPT().eval(), (torch.randint(512, (8, 128)), torch.randint(512, (8 * 128,)))
    model, size = (
        (residual_network([16, 32, 64], 3), 64) if name == "cnn" else (residual_network([48, 96, 128], 1), 128)
    )
    return model.eval(), (torch.randn(size, 3, 32, 32), torch.randint(10, (size,)))
