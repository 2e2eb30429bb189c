"""Modes of the own thread: float64 as the default, and no draws from a stream that another thread uses."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lightning_ww.callbacks._sandbox.modes import drawn_alone, precision_of
from lightning_ww.callbacks._sandbox.rollback import DrawnError


def test_new_tensors_are_in_float64_where_nothing_else_is_said() -> None:
    with precision_of(torch.float64):
        assert torch.zeros(2).dtype == torch.randn(2).dtype == torch.tensor(1.0).dtype == torch.float64
        assert torch.zeros(2, dtype=torch.float32).dtype == torch.float32
        assert torch.zeros(2, dtype=torch.int64).dtype == torch.arange(3).dtype == torch.int64
        assert torch.ones_like(torch.zeros(2, dtype=torch.float16)).dtype == torch.float16
        assert torch.randint(3, (2,)).dtype == torch.int64
    assert torch.zeros(2).dtype == torch.float32


def test_random_numbers_are_those_of_the_stream_in_float64() -> None:
    torch.manual_seed(0)
    with precision_of(torch.float64):
        found = torch.randn(3)
    torch.manual_seed(0)
    torch.testing.assert_close(found, torch.randn(3, dtype=torch.float64), rtol=0, atol=0)


def test_in_a_widened_copy_random_numbers_are_those_of_float32() -> None:
    def drawn(like: Tensor) -> list[Tensor]:
        torch.manual_seed(0)
        return [
            torch.randn(3),
            torch.randn_like(like),
            torch.zeros_like(like).normal_(),
            torch.bernoulli(0.3 + 0 * like),
            torch.normal(like, 1 + 0 * like),
            torch.rand((), generator=torch.Generator().manual_seed(1)),
            torch.multinomial(1 + like, 2),
        ]

    like = torch.linspace(0, 1, 4)
    with precision_of(torch.float64, widens=True):
        found = drawn(like.double())
        assert torch.zeros(2).dtype == torch.float64
    for ours, plain in zip(found, drawn(like), strict=True):
        assert ours.dtype == (torch.float64 if plain.is_floating_point() else plain.dtype)
        torch.testing.assert_close(ours.float(), plain.float(), rtol=1e-6, atol=1e-7)


def test_in_float32_nothing_changes_and_another_thread_never_sees_it() -> None:
    seen = []
    with precision_of(torch.float32):
        assert torch.zeros(2).dtype == torch.float32
    with precision_of(torch.float64):
        thread = threading.Thread(target=lambda: seen.append(torch.zeros(2).dtype))
        thread.start()
        thread.join()
    assert seen == [torch.float32]


def test_random_numbers_are_refused_while_another_thread_trains() -> None:
    begun, done = threading.Event(), threading.Event()

    def closure() -> float:
        begun.set()
        done.wait(10)
        return 0.0

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    thread = threading.Thread(target=lambda: optimizer.step(closure))
    with drawn_alone():
        torch.rand(1)
    thread.start()
    begun.wait(10)
    try:
        with drawn_alone():
            torch.rand(1, generator=torch.Generator().manual_seed(0))
            functional.dropout(torch.ones(2), training=False)
            with pytest.raises(DrawnError, match="draws random numbers"):
                torch.rand(1)
            with pytest.raises(DrawnError, match="dropout"):
                functional.dropout(torch.ones(2))
    finally:
        done.set()
        thread.join()
