"""Modes of the own thread, in place of what torch sets for the whole process: the default dtype, and random streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_map

from lightning_ww.callbacks._sandbox.mute import streams_are_kept
from lightning_ww.callbacks._sandbox.rollback import DrawnError

ONCE = {torch.rand, torch.randn, torch.normal, torch.empty}
"""Functions that make floating-point tensors, and that may not be called twice."""

DRAWING = {
    *(torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli, torch.multinomial),
    *(torch.poisson, torch.rand_like, torch.randn_like, torch.randint_like, torch.rrelu),
    *(Tensor.normal_, Tensor.uniform_, Tensor.random_, Tensor.bernoulli_, Tensor.bernoulli, Tensor.exponential_),
    *(Tensor.geometric_, Tensor.log_normal_, Tensor.cauchy_, Tensor.multinomial),
}
"""Functions that draw from torch's random stream unless they get a generator."""

DROPPING = {
    functional.dropout,
    functional.alpha_dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
}
"""Functions that draw from it in training mode."""


class _Double(TorchFunctionMode):
    """Makes new tensors in float64 where nothing else is said, as Lightning has it in training.

    Args:
        widens: Whether random numbers are those of the present default dtype, widened, rather than drawn in float64.
    """

    def __init__(self, *, widens: bool) -> None:
        super().__init__()
        self._widens = widens

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._widens and func in DRAWING:
            return _drawn_in_single(func, args, kwargs)
        if func in _device_constructors() and kwargs.get("dtype") is None:
            if func in ONCE:
                return func(*args, **kwargs | {"dtype": torch.float64})
            made = func(*args, **kwargs)
            is_default = isinstance(made, Tensor) and made.dtype == torch.get_default_dtype()
            given = any(isinstance(value, Tensor) for value in (*args, *kwargs.values()))
            return func(*args, **kwargs | {"dtype": torch.float64}) if is_default and not given else made
        return func(*args, **kwargs)


def _drawn_in_single(func: Any, args: Any, kwargs: Any) -> Any:
    """Draw the random numbers that float32 tensors would get, in float64."""
    narrow, options = tree_map(_single, (args, kwargs))
    if options.get("dtype") == torch.float64:
        options["dtype"] = torch.float32
    drawn = func(*narrow, **options)
    if narrow and drawn is narrow[0]:  # in place
        return args[0].copy_(drawn)
    return drawn.double() if isinstance(drawn, Tensor) and drawn.is_floating_point() else drawn


def _single(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float64 else value


class _Undrawn(TorchFunctionMode):
    """Refuses to draw random numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        draws = func in DRAWING and kwargs.get("generator") is None
        if func in DROPPING:
            draws = bool(kwargs.get("training", args[2] if len(args) > 2 else True))
        if draws:
            raise DrawnError(f"it draws random numbers (`{func.__name__}`) from a stream that another thread uses, too")
        return func(*args, **kwargs)


@contextmanager
def precision_of(dtype: torch.dtype, *, widens: bool = False) -> Iterator[None]:
    """Make float64 the default dtype of this thread if the module is in float64.

    Args:
        dtype: The module's dtype.
        widens: Whether random numbers stay those of the process's default dtype, as in a copy of a module in float32.
    """
    with ExitStack() as stack:
        if dtype == torch.float64 and torch.get_default_dtype() != torch.float64:
            stack.enter_context(_Double(widens=widens))
        yield


@contextmanager
def drawn_alone() -> Iterator[None]:
    """Refuse random numbers while another thread trains or makes batches: torch has one stream for all."""
    with ExitStack() as stack:
        if not streams_are_kept():
            stack.enter_context(_Undrawn())
        yield
