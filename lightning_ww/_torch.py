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


def plain_name(name: str) -> str:
    """A dotted name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor, converted to float32 if it is in half precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


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
