"""Decisions of several processes, here of two that a strategy stands for: each gets the same error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_ww._errors import LightningWWError
from lightning_ww.callbacks._curvature.ranks import on_all, reached_by_any, summed

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process says ``theirs`` whenever all say something."""

    def gather(values: list[Any], value: Any) -> None:
        CALLS.append("gather")
        values[:] = [value, "theirs"]

    CALLS.clear()
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)


def alone() -> Any:
    return SimpleNamespace(world_size=1)


def beside(other: bool) -> Any:
    """A Trainer whose other process decides ``other`` each time, and sums ones."""

    def decide(own: bool, all: bool) -> bool:
        CALLS.append("decide")
        return own and other if all else own or other

    strategy = SimpleNamespace(
        reduce_boolean_decision=decide,
        reduce=lambda tensor, reduce_op: tensor + 1 if other else tensor,
        root_device=torch.device("cpu"),
    )
    return SimpleNamespace(world_size=2, strategy=strategy)


def fail() -> None:
    raise KeyError("mine")


def test_an_action_that_succeeds_gives_its_result_and_an_error_is_its_own() -> None:
    assert on_all(alone(), lambda: 3) == 3
    with pytest.raises(KeyError, match="mine"):
        on_all(alone(), fail)
    with pytest.raises(KeyError, match="mine"):
        on_all(beside(False), fail)


def test_an_error_of_another_process_is_an_error_here_after_as_many_collective_calls() -> None:
    with pytest.raises(LightningWWError, match="another process failed: theirs"):
        on_all(beside(False), lambda: 3)
    here = list(CALLS)
    CALLS.clear()
    with pytest.raises(KeyError):
        on_all(beside(False), fail)
    assert here == CALLS == ["decide"] * 3 + ["gather"]


def test_a_parameter_counts_if_any_process_reaches_it() -> None:
    assert reached_by_any(alone(), [True, False]) == [True, False]
    assert reached_by_any(beside(False), [True, False]) == [True, False]
    assert reached_by_any(beside(True), [True, False]) == [True, True]


def test_sums_are_those_of_all_processes() -> None:
    assert float(summed(beside(True), torch.tensor(2.0))) == 3.0
