"""Random streams, plain names and precision."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ww._torch import full_precision, operations, plain_name, random_streams_kept


def test_names_lose_what_wrappers_add_and_nothing_else() -> None:
    assert plain_name("_orig_mod.net._fsdp_wrapped_module.0._checkpoint_wrapped_module.weight") == "net.0.weight"
    assert plain_name("module._forward_module.head") == "module.head"
    assert plain_name("my_orig_mod.weight") == "my_orig_mod.weight"


def test_every_global_stream_is_put_back_also_after_an_error() -> None:
    module = nn.Linear(1, 1)

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = draw()
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])

    def fail() -> None:
        with random_streams_kept(module):
            draw()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert draw() == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_alone_is_raised(dtype: torch.dtype) -> None:
    assert full_precision(torch.ones(1, dtype=dtype)).dtype == torch.float32
    for other in (torch.float32, torch.float64, torch.int64):
        same = torch.ones(1, dtype=other)
        assert full_precision(same) is same


def test_operations_of_a_graph_are_all_that_lead_to_a_leaf() -> None:
    w = torch.ones(2, requires_grad=True)
    assert operations((w.exp() * w).sum()) == {
        "SumBackward0",
        "MulBackward0",
        "ExpBackward0",
        "torch::autograd::AccumulateGrad",
    }
    assert operations(torch.ones(())) == set()


def test_names_are_made_printable() -> None:
    assert plain_name("a.é.层") == "a.é.层"
    assert plain_name("a\nb\x1b[31m\u202e\ud800") == "a\\nb\\x1b[31m\\u202e\\ud800"
