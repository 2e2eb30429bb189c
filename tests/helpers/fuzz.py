"""Random models: trees of layers of every kind, with odd names, dtypes, shapes and values."""

from __future__ import annotations

import random
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

NAMES = [
    *("a", "weight", "block", "0", "café", "层", "Δ", "a b", "x\ny", "x\x00y", "\x1b[31mred", "\u202eright", "é\u0301"),
    *(
        "🙂",
        "\ud800",
        "|",
        "`code`",
        "<b>",
        "$x^2$",
        "a" * 70,
        "dots",
        "#1",
        "%s",
        "{}",
        "\\n",
        "עברית",
        "ไทย",
    ),
]
"""Names of modules; a module's name has no dots."""


class Odd(nn.Module):
    """A module with parameters of its own."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        for i in range(rng.randint(1, 3)):
            shape = [rng.choice((1, 2, 5, 9)) for _ in range(rng.randint(0, 4))]
            self.register_parameter(f"p{i}", nn.Parameter(torch.randn(shape)))


class Times(nn.Module):
    """A parametrization by a factor."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def size(rng: random.Random) -> int:
    return rng.choice((1, 2, 3, 8, 13, 24))


def layer(rng: random.Random) -> nn.Module:
    """A layer of a random kind and shape."""
    n, m, k = size(rng), size(rng), rng.choice((1, 2, 3))
    kinds: list[Any] = [
        lambda: nn.Linear(n, m),
        lambda: nn.Linear(n, m, bias=False),
        lambda: nn.Conv1d(n, m, k),
        lambda: nn.Conv2d(n, m, (k, 2)),
        lambda: nn.Conv2d(n, n * k, k, groups=n),
        lambda: nn.Conv3d(n, m, k),
        lambda: nn.ConvTranspose2d(n, m, k),
        lambda: nn.Embedding(n + 1, m),
        lambda: nn.EmbeddingBag(n, m),
        lambda: nn.Bilinear(n, m, k),
        lambda: nn.LSTM(n, m, num_layers=k, bidirectional=k == 2),
        lambda: nn.GRUCell(n, m),
        lambda: nn.MultiheadAttention(8, 2, kdim=rng.choice((None, 5)), vdim=rng.choice((None, 3))),
        lambda: nn.LayerNorm((n, m)),
        lambda: nn.BatchNorm1d(n),
        lambda: nn.PReLU(n),
        lambda: nn.LazyLinear(m),
        lambda: nn.LazyConv2d(m, k),
        lambda: nn.Identity(),
        lambda: nn.ParameterList([torch.randn(n, m), torch.randn(k)]),
        lambda: nn.ParameterDict({"q": torch.randn(n, m)}),
        lambda: nn.Linear(n, m, device="meta"),
        lambda: Odd(rng),
        lambda: parametrizations.weight_norm(nn.Linear(n, m)),
        lambda: parametrizations.spectral_norm(nn.Linear(n, m)),
        lambda: prune.random_unstructured(nn.Linear(n, m), "weight", 0.5),  # type: ignore[no-untyped-call]
        lambda: with_factor(nn.Conv1d(n, m, k)),
    ]
    return rng.choice(kinds)()  # type: ignore[no-any-return]


def with_factor(module: nn.Module) -> nn.Module:
    parametrize.register_parametrization(module, "weight", Times())
    return module


VALUES: list[Any] = [
    lambda x: x,
    lambda x: x * 0,
    lambda x: x * 0 + 1,
    lambda x: x * 1e-30,
    lambda x: x * 1e30,
    lambda x: x * 1e-42,
    lambda x: x.sign(),
    lambda x: x.pow(9),
    lambda x: torch.where(x > 1, torch.nan, x),
    lambda x: torch.where(x > 1, torch.inf, x),
    lambda x: x.round(),
    lambda x: x[:1].expand_as(x),
]

DTYPES = [
    *(torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2),
]


def model(seed: int) -> nn.Module:
    """A random model."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = tree(rng, 0)
        for path, module in root.named_modules():
            is_derived = "parametrizations" in path or any("_orig" in name for name in module._parameters)
            for name, parameter in list(module._parameters.items()):
                if parameter is not None and not nn.parameter.is_lazy(parameter) and not parameter.is_meta:
                    # a parametrization's own code raises for a mix of dtypes
                    module._parameters[name] = altered(rng, parameter, keep_dtype=is_derived)
    return root


def altered(rng: random.Random, parameter: nn.Parameter, *, keep_dtype: bool) -> nn.Parameter:
    """The parameter, or one with odd values or of another dtype."""
    values = parameter.detach()
    if rng.random() < 0.4 and values.ndim and values.numel():
        values = rng.choice(VALUES)(values).contiguous()
    if rng.random() < 0.15 and values.is_floating_point() and not keep_dtype:
        values = values.to(rng.choice(DTYPES))
    return nn.Parameter(values, requires_grad=parameter.requires_grad and rng.random() < 0.9)


def tree(rng: random.Random, depth: int) -> nn.Module:
    """A module with random children."""
    module = nn.Module()
    made: list[nn.Module] = []
    for _ in range(rng.randint(1, 4)):
        child = tree(rng, depth + 1) if depth < 3 and rng.random() < 0.3 else layer(rng)
        child = rng.choice(made) if made and rng.random() < 0.05 else child
        made.append(child)
        name = rng.choice(NAMES) + ("" if rng.random() < 0.5 else str(rng.randint(0, 99)))
        if not hasattr(module, name):
            module.add_module(name, child)
    return module
