"""`differentiable_twice`: the context in which graphs of second derivatives are built and used."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from lightning_ww._threads import others_train
from lightning_ww._torch import full_precision
from lightning_ww.curvature.second_derivatives.rewrites import ALWAYS, LOOKUPS, REWRITES

AUTOCAST = ("cpu", "cuda")
"""The devices whose autocast is switched off."""

_entered = threading.local()


@contextmanager
def differentiable_twice() -> Iterator[Rewritten]:
    """Avoid fused kernels, compiled graphs and half precision, which have no second derivatives, in this thread alone.

    Torch has process-wide flags for the first two. Another thread that trains would see them, so the kernels are avoided
    by a mode, which belongs to its thread. Compiled functions have only such a flag, so they run compiled then.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in AUTOCAST:
            if torch.is_autocast_enabled(device):  # the state of a thread
                stack.enter_context(torch.autocast(device, enabled=False))
        if "torch._dynamo" in sys.modules and not others_train():  # else nothing is compiled, or it may not be touched
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        known: Rewritten | None = getattr(_entered, "mode", None)
        if known is not None:  # an inner context uses the mode of the outer context
            yield known
            return
        _entered.mode = stack.enter_context(Rewritten())
        try:
            yield _entered.mode
        finally:
            _entered.mode = None


@contextmanager
def by_torch_itself() -> Iterator[None]:
    """Leave operations as torch has them, apart from lookups that would write to their weights: an independent witness."""
    with differentiable_twice() as mode:
        before, mode.is_plain = mode.is_plain, True
        try:
            yield
        finally:
            mode.is_plain = before


class Rewritten(TorchFunctionMode):
    """A mode that replaces torch's operations by operations with a correct or cheaper second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self._is_linear = False
        self.is_plain = False  # whether torch's own operations are used

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with ExitStack() as stack:
            for device in AUTOCAST:
                if torch.is_autocast_enabled(device):  # by the user's own `torch.autocast`, within the loss
                    stack.enter_context(torch.autocast(device, enabled=False))
            return self._rewritten(func, args, kwargs or {})

    def _rewritten(self, func: Any, args: Any, kwargs: Any) -> Any:
        rewrite = REWRITES.get(func) if torch.is_grad_enabled() else None
        rewrite = LOOKUPS.get(func) if self.is_plain else rewrite or ALWAYS.get(func)
        if rewrite is not None:
            try:
                result = rewrite(self._through, *args, **kwargs)
            except (RuntimeError, TypeError):  # within torch.func's transforms, or for arguments that torch refuses
                result = NotImplemented
            if result is not NotImplemented:
                return result
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if "dtype" not in str(error):
                raise
            # a step in half precision converts to it, but its weights here are in float32
            wider = tree_map(_full, (args, kwargs))
            if not any(a is not b for a, b in zip(tree_leaves((args, kwargs)), tree_leaves(wider), strict=True)):
                raise
            return func(*wider[0], **wider[1])

    @contextmanager
    def linear_in_cotangents(self) -> Iterator[None]:
        """Build graphs of backward passes that are differentiated only with respect to the cotangents at their start."""
        # A Function does not know which derivatives are needed, and would compute those with respect to constants, too.
        self._is_linear = True
        try:
            yield
        finally:
            self._is_linear = False

    def _through(self, saved: Tensor) -> Tensor:
        # without a graph, as in second derivatives, there is nothing to detach from
        return saved.detach() if self._is_linear and torch.is_grad_enabled() else saved


def _full(value: Any) -> Any:
    return full_precision(value) if isinstance(value, Tensor) else value
