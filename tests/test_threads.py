"""What the stacks of other threads show."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader

from lightning_ww._threads import others_draw, others_run, others_train


@contextmanager
def beside(action: Callable[[threading.Event, threading.Event], None]) -> Iterator[None]:
    """Run an action in a thread until it sets the first event; let it end after the block, by the second."""
    begun, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=action, args=(begun, done))
    thread.start()
    begun.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_alone_nobody_trains() -> None:
    assert not others_train()
    assert not others_draw()
    assert not others_run()


def test_a_thread_that_waits_runs_but_does_not_train() -> None:
    def wait(begun: threading.Event, done: threading.Event) -> None:
        begun.set()
        done.wait(10)

    with beside(wait):
        assert others_run()
        assert not others_train()


def test_a_thread_in_an_optimizers_step_trains() -> None:
    def step(begun: threading.Event, done: threading.Event) -> None:
        def closure() -> float:
            begun.set()
            done.wait(10)
            return 0.0

        torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1).step(closure)

    with beside(step):
        assert others_train()
    assert not others_train()


def test_a_thread_in_a_backward_pass_trains() -> None:
    def differentiate(begun: threading.Event, done: threading.Event) -> None:
        def hook(slope: torch.Tensor) -> None:
            begun.set()
            done.wait(10)

        x = torch.zeros(1, requires_grad=True)
        x.register_hook(hook)  # type: ignore[no-untyped-call]
        x.sum().backward()  # type: ignore[no-untyped-call]

    with beside(differentiate):
        assert others_train()


def test_threads_of_libraries_are_not_the_users() -> None:
    class Writer(threading.Thread):
        """As TensorBoard's."""

    Writer.__module__ = "tensorboard.summary.writer"
    done = threading.Event()
    thread = Writer(target=done.wait)
    thread.start()
    assert not others_run()
    done.set()
    thread.join()


def test_a_thread_in_a_loader_draws_but_does_not_train() -> None:
    def load(begun: threading.Event, done: threading.Event) -> None:
        def collated(items: list[int]) -> list[int]:
            begun.set()
            done.wait(10)
            return items

        list(DataLoader([1, 2], 2, collate_fn=collated))  # type: ignore[arg-type]

    with beside(load):
        assert others_draw()
        assert not others_train()
    assert not others_draw()
