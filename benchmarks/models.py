"""The networks that the benchmarks measure: power-law low-rank parts on noise, as training leaves them."""

from __future__ import annotations

import torch
from torch import nn


def brief() -> nn.Sequential:
    """Five layers, short sides 128 to 1024."""
    return _trained_like(
        nn.Sequential(
            nn.Linear(512, 512),
            nn.Linear(1024, 1024),
            nn.Linear(2048, 512),
            nn.Conv2d(128, 128, 3),
            nn.Conv2d(256, 256, 3),
        )
    )


def transformer() -> nn.Module:
    """Twelve linear layers of two blocks of width 256."""
    block = [(256, 256)] * 4 + [(256, 1024), (1024, 256)]
    return _trained_like(nn.Sequential(*(nn.Linear(*shape) for shape in block * 2)))


def perceptron() -> nn.Module:
    """Twelve linear layers of width 128."""
    return _trained_like(nn.Sequential(*(nn.Linear(128, 128) for _ in range(12))))


def resnet20() -> nn.Module:
    """The convolutions and the head of a ResNet-20 for CIFAR."""
    widths = [(16, 16)] * 6 + [(16, 32)] + [(32, 32)] * 5 + [(32, 64)] + [(64, 64)] * 5
    return _trained_like(nn.Sequential(*(nn.Conv2d(a, b, 3) for a, b in widths), nn.Linear(64, 10)))


def tiny() -> nn.Module:
    """A hundred layers so small that only what each layer costs anyway is seen."""
    return _trained_like(nn.Sequential(*(nn.Linear(16, 16) for _ in range(100))))


def _trained_like(model: nn.Sequential) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                continue
            out, fan_in = parameter.shape[0], parameter[0].numel()
            rank = min(out, fan_in) // 4
            left, right = torch.randn(out, rank, generator=generator), torch.randn(rank, fan_in, generator=generator)
            decay = torch.arange(1, rank + 1) ** -0.8
            noise = torch.randn(out, fan_in, generator=generator)
            parameter.copy_(((noise + 0.5 * left @ (decay[:, None] * right)) / fan_in**0.5).reshape(parameter.shape))
    return model
