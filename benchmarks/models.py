"""The networks that the benchmarks measure: power-law low-rank parts on noise, as training leaves them."""

from __future__ import annotations

import numpy as np
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


def tiny(order: int, number: int) -> nn.Module:
    """Layers so small that only what each layer costs anyway is seen."""
    return _trained_like(nn.Sequential(*(nn.Linear(order, order) for _ in range(number))))


def resnet18() -> nn.Module:
    """The convolutions and the head of a ResNet-18."""
    stages = (
        [(64, 64)] * 4
        + [(64, 128)]
        + [(128, 128)] * 3
        + [(128, 256)]
        + [(256, 256)] * 3
        + [(256, 512)]
        + [(512, 512)] * 3
    )
    shortcuts = [nn.Conv2d(a, b, 1) for a, b in ((64, 128), (128, 256), (256, 512))]
    convolutions = [nn.Conv2d(3, 64, 7), *(nn.Conv2d(a, b, 3) for a, b in stages), *shortcuts]
    return _heavy_tailed(nn.Sequential(*convolutions, nn.Linear(512, 1000)))


def block(width: int) -> nn.Module:
    """The linear layers of one block of a transformer: ViT-S has twelve of width 384, GPT-2 small twelve of width 768."""
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    return _heavy_tailed(nn.Sequential(*(nn.Linear(*shape) for shape in shapes)))


def moved(model: nn.Module, generator: torch.Generator) -> None:
    """Move each weight by a hundredth of itself, as an epoch of slow training does."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * parameter.std() * torch.randn(parameter.shape, generator=generator))


def _heavy_tailed(model: nn.Sequential) -> nn.Sequential:
    """Elements by Student's t with 4.5 degrees of freedom, and a part of low rank: no shuffle of such is predicted."""
    random = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                continue
            out, fan_in = parameter.shape[0], parameter[0].numel()
            rank = max(1, min(out, fan_in) // 16)
            learned = random.standard_normal((out, rank)) @ random.standard_normal((rank, fan_in)) / rank**0.5
            weight = (random.standard_t(4.5, (out, fan_in)) + 0.5 * learned) / fan_in**0.5
            parameter.copy_(torch.from_numpy(weight).reshape(parameter.shape))
    return model


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
