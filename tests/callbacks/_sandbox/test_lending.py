"""Copies of lists, lent to an evaluation: what other threads append meanwhile is kept."""

from __future__ import annotations

import threading
from collections import deque

import pytest
from torch import nn

from lightning_ww.callbacks._sandbox.lending import copy_to_lend, give_back, places_of_lists


@pytest.mark.parametrize("original", [[1, 2], deque([1, 2], maxlen=5)])
def test_only_what_other_threads_append_is_given_back(original: list[int] | deque[int]) -> None:
    kind = type(original)
    lent = copy_to_lend(original)
    lent.append(3)
    thread = threading.Thread(target=lambda: lent.append(4))
    thread.start()
    thread.join()
    assert list(lent) == [1, 2, 3, 4]
    assert list(original) == [1, 2]
    give_back(original, lent)
    assert list(original) == [1, 2, 4]
    assert type(original) is kind


def test_lists_of_submodules_are_found() -> None:
    module, other = nn.Module(), nn.Module()
    module.part = other
    other.items, other.name = [1], "x"  # type: ignore[assignment]
    assert [(home is vars(other), name) for home, name in places_of_lists(module)] == [(True, "items")]
