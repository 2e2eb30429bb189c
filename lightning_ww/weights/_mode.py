"""Evaluation mode for a moment."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Set every submodule's `training` flag to False, then each back to what it was.

    The flags are set directly: `module.eval()` may be overridden, and `module.train()` afterwards would unfreeze
    submodules that the user had put in evaluation mode.
    """
    before = [(child, child.training) for child in module.modules()]
    try:
        for child, _ in before:
            child.training = False
        yield
    finally:
        for child, training in before:
            child.training = training
