"""Helpers for torch that all packages share: random streams, plain names of wrapped modules, full precision."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Attributes of compiled, sharded and checkpointed modules that refer to the user's module."""

FACTORS = frozenset({"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_down", "lora_up"})
"""The names of modules and parameters that hold the factors of low-rank products, in PEFT, diffusers and loralib."""


def plain_name(name: str) -> str:
    """A dotted name without the parts that wrappers add, made printable."""
    return printable(".".join(part for part in name.split(".") if part not in WRAPPERS))


def is_factor(name: str) -> bool:
    """Whether a dotted name is that of a factor of a low-rank product."""
    return not FACTORS.isdisjoint(name.split("."))


def printable(name: str) -> str:
    """A name that can be shown: line breaks, control codes, lone surrogates and marks that turn the line are escaped."""
    if name.isprintable():
        return name
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor, converted to float32 (complex64) if it is in half precision."""
    if tensor.dtype == torch.complex32:
        return tensor.to(torch.complex64)
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def double_precision(tensor: Tensor) -> Tensor:
    """The tensor, converted to float64 or complex128 if it is of floating point."""
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor


def cuda_devices(module: nn.Module) -> list[int]:
    """The CUDA devices whose random streams an evaluation of the module could advance."""
    return sorted({p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"})


@contextmanager
def random_streams_kept(module: nn.Module) -> Iterator[None]:
    """Restore the global random streams of torch, numpy and Python on exit."""
    streams = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=cuda_devices(module)):
            yield
    finally:
        random.setstate(streams[0])
        np.random.set_state(streams[1])


def operations(value: Tensor) -> set[str]:
    """The names of the backward operations in the graph of a tensor, such as ``AddmmBackward0``."""
    waiting, seen = [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return {node.name() for node in seen}
