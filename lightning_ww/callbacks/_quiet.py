"""A loss evaluated in the middle of a run that leaves everything as it was.

`training_step` logs, updates metrics and buffers, draws random numbers, appends to lists. While `quiet` is entered its
logging goes nowhere; when it is left, what the module and its submodules hold is what they held, to the last bit. The
parameters and buffers themselves are never touched: `functional` has them replaced by copies.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ww.callbacks._lightning import DummyLogger

if TYPE_CHECKING:
    from lightning_ww.callbacks._lightning import LightningModule, Trainer

BatchNormMode = Literal["eval", "train"]

LARGE = 64 * 2**20
"""A tensor of more bytes that is neither parameter nor buffer is taken to be data, which nothing writes to."""


@contextmanager
def quiet(trainer: Trainer, pl_module: LightningModule, batch_norm: BatchNormMode = "eval") -> Iterator[None]:
    """Silence logging and loggers, switch to evaluation mode, take hooks on gradients away; undo everything after.

    Args:
        trainer: Whose loggers are silenced.
        pl_module: What is evaluated.
        batch_norm: Whether batch normalisation uses its running statistics (``"eval"``) or the batch's (``"train"``, where
            it is in training mode anyway).
    """
    with ExitStack() as stack:
        stack.enter_context(_random_streams(pl_module))
        stack.callback(setattr, trainer, "should_stop", trainer.should_stop)
        memo: dict[int, Any] = {}
        for module in pl_module.modules():
            stack.callback(_restore, module, dict(vars(module)))
            for name, value in vars(module).items():
                if name not in ("_modules", "_parameters", "_buffers"):
                    _remember(value, stack, memo)
        for module in pl_module.modules():
            is_batch_norm = isinstance(module, nn.modules.batchnorm._NormBase)
            held = vars(module)
            held["training"] = module.training and is_batch_norm and batch_norm == "train"
            held["_backward_hooks"], held["_backward_pre_hooks"] = OrderedDict(), OrderedDict()
            if callable(getattr(module, "log_dict", None)):  # a LightningModule, of either namespace
                held["log"] = held["log_dict"] = _nothing
                held["_current_fx_name"] = "training_step"
        loggers = list(trainer.loggers)
        stack.callback(setattr, trainer, "loggers", loggers)
        trainer.loggers = [DummyLogger() for _ in loggers]
        yield


def functional(
    pl_module: LightningModule, state: Mapping[str, Tensor], function: Callable[..., Any], *arguments: Any
) -> Any:
    """Call a function that reads the module's parameters and buffers, with others in their place."""
    inner = {f"inner.{name}": value for name, value in state.items()}
    return torch.func.functional_call(_Calling(pl_module, function), inner, arguments)


def seed_streams(module: nn.Module, seed: int) -> None:
    """Start the global random streams at the same place each time; `quiet` puts them back."""
    torch.default_generator.manual_seed(seed)
    for device in _devices(module):
        torch.cuda.default_generators[device].manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


class _Calling(nn.Module):
    """Lets a function stand for a module's forward, so that `functional_call` serves it."""

    def __init__(self, inner: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.inner, self._function = inner, function

    def forward(self, *arguments: Any) -> Any:
        return self._function(*arguments)


def _devices(module: nn.Module) -> list[int]:
    return sorted({p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"})


@contextmanager
def _random_streams(module: nn.Module) -> Iterator[None]:
    """Put torch's, numpy's and Python's random streams back at the end."""
    streams = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=_devices(module)):
            yield
    finally:
        random.setstate(streams[0])
        np.random.set_state(streams[1])


def _nothing(*_: Any, **__: Any) -> None:
    """In place of `log`."""


def _restore(module: nn.Module, held: Mapping[str, Any]) -> None:
    """Give a module the attributes that it had."""
    now = vars(module)
    for name in [name for name in now if name not in held]:
        del now[name]
    now.update(held)


def _remember(value: Any, stack: ExitStack, memo: dict[int, Any]) -> None:
    """Have the contents of a container, tensor or array put back in place, and those of what it contains."""
    if id(value) in memo:
        return
    memo[id(value)] = value
    if isinstance(value, list | dict | set | deque):
        items = list(value.items()) if isinstance(value, dict) else list(value)
        stack.callback(_refill, value, items)
        for item in value.values() if isinstance(value, dict) else items:
            _remember(item, stack, memo)
    elif isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        if value.numel() * value.element_size() <= LARGE and not value.is_meta:
            stack.callback(_rewrite, value, value.detach().clone())
    elif isinstance(value, np.ndarray) and value.nbytes <= LARGE:
        stack.callback(np.copyto, value, value.copy())


def _refill(container: Any, items: list[Any]) -> None:
    """Give a container the items that it had, if they are not the same any more."""
    now = list(container.items()) if isinstance(container, dict) else list(container)
    pairs = zip(now, items, strict=False)
    if isinstance(container, dict):
        is_same = len(now) == len(items) and all(a[0] is b[0] and a[1] is b[1] for a, b in pairs)
    else:
        is_same = len(now) == len(items) and all(a is b for a, b in pairs)
    if is_same:
        return
    container.clear()
    if isinstance(container, list | deque):
        container.extend(items)
    else:
        container.update(items)


def _rewrite(tensor: Tensor, contents: Tensor) -> None:
    if not torch.equal(tensor.detach(), contents):
        with torch.no_grad(), torch.autograd._unsafe_preserve_version_counter(tensor):  # type: ignore[attr-defined]
            tensor.copy_(contents)
