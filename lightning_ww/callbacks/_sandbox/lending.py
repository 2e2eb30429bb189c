"""Lists that are lent to an evaluation as copies, so that what other threads append meanwhile is kept."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from torch import nn


class _Watching:
    """A copy of a container, which knows what other threads append to it."""

    def __init__(self, *contents: Any) -> None:
        super().__init__(*contents)
        self.thread = threading.get_ident()
        self.from_others: list[Any] = []

    def append(self, item: Any) -> None:
        if threading.get_ident() != self.thread:
            self.from_others.append(item)
        super().append(item)  # type: ignore[misc]  # of the list or deque that comes next


class Lent(_Watching, list[Any]):
    """A copy of a list."""


class LentDeque(_Watching, deque[Any]):
    """A copy of a deque."""


def places_of_lists(module: nn.Module) -> Iterator[tuple[dict[str, Any], str]]:
    """The attributes of a module and its submodules that are lists or deques: the module's attributes, and the name."""
    for part in module.modules():
        for name, value in list(vars(part).items()):
            if type(value) in (list, deque):
                yield vars(part), name


def copy_to_lend(original: list[Any] | deque[Any]) -> Lent | LentDeque:
    """A copy, which knows what other threads append to it."""
    return Lent(original) if isinstance(original, list) else LentDeque(original, original.maxlen)


def give_back(container: Any, lent: Any) -> None:
    """Append to a list or deque what other threads have appended to its copy."""
    container.extend(lent.from_others)
