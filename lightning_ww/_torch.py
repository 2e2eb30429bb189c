"""What every floor needs of torch: random streams kept, plain names of wrapped modules, full precision."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Attributes under which compiled, sharded and checkpointed modules hold the module that the user named."""


def plain_name(name: str) -> str:
    """A dotted name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in float32, if it is in half precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def cuda_devices(module: nn.Module) -> list[int]:
    """The CUDA devices whose random streams an evaluation of the module could advance."""
    return sorted({p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"})


@contextmanager
def random_streams_kept(module: nn.Module) -> Iterator[None]:
    """Put torch's, numpy's and Python's global random streams back at the end."""
    streams = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=cuda_devices(module)):
            yield
    finally:
        random.setstate(streams[0])
        np.random.set_state(streams[1])
