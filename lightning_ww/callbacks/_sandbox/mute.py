"""Muting: the evaluation of a module in the middle of a run without logging or other side effects.

`training_step` logs, updates metrics and buffers, draws random numbers, and appends to lists. Within `muted` its logging is
discarded. Afterward the module and its submodules are restored, to the last bit.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from lightning_ww._torch import cuda_devices, random_streams_kept
from lightning_ww.callbacks._monitor.lightning import DummyLogger
from lightning_ww.callbacks._sandbox.rollback import put_back

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer

BatchNormMode = Literal["eval", "train"]


@contextmanager
def muted(trainer: Trainer, pl_module: LightningModule, batch_norm: BatchNormMode = "eval") -> Iterator[None]:
    """Silence logging and loggers, switch to evaluation mode, remove gradient hooks; undo everything on exit.

    Args:
        trainer: The Trainer, whose loggers are silenced.
        pl_module: The module that is evaluated.
        batch_norm: Whether batch normalization uses its running statistics (``"eval"``) or the batch's (``"train"``, where
            it is in training mode anyway).
    """
    with ExitStack() as stack:
        stack.enter_context(random_streams_kept(pl_module))
        stack.callback(setattr, trainer, "should_stop", trainer.should_stop)
        stack.callback(setattr, trainer, "loggers", list(trainer.loggers))
        stack.enter_context(_no_gradients(pl_module, trainer))
        groups = [optimizer.param_groups for optimizer in trainer.optimizers]
        schedules = [_schedule_of(config.scheduler) for config in trainer.lr_scheduler_configs]
        stack.enter_context(put_back(pl_module, groups, schedules, trainer.callback_metrics))
        stack.enter_context(_no_autocast())
        if (loop := getattr(trainer.fit_loop, "epoch_loop", None)) is not None and hasattr(loop, "_results"):
            stack.callback(setattr, loop, "_results", loop._results)
            loop._results = type(loop._results)(training=True)  # for a stored reference to `log`
        writers = {id(getattr(logger, "_experiment", None)) for logger in trainer.loggers}
        for module in _all_modules(pl_module):
            for name, value in list(vars(module).items()):
                if value is not None and id(value) in writers:
                    vars(module)[name] = DummyLogger().experiment
            is_batch_norm = isinstance(module, nn.modules.batchnorm._NormBase)
            attributes = vars(module)
            attributes["training"] = module.training and is_batch_norm and batch_norm == "train"
            attributes["_backward_hooks"], attributes["_backward_pre_hooks"] = OrderedDict(), OrderedDict()
            if callable(getattr(module, "log_dict", None)):  # a LightningModule, of either namespace
                attributes["log"] = attributes["log_dict"] = attributes["print"] = _nothing
                attributes["_current_fx_name"] = "training_step"
        trainer.loggers = [_Muted(logger) for logger in trainer.loggers]
        yield


def _schedule_of(scheduler: Any) -> list[Any]:
    """The attributes of a learning-rate scheduler, and of the schedulers that it is made of."""
    return [vars(scheduler), *(_schedule_of(part) for part in getattr(scheduler, "_schedulers", ()))]


@contextmanager
def _no_autocast() -> Iterator[None]:
    """Disable the user's own `torch.autocast`, because second derivatives in half precision are noise."""
    kind = torch.amp.autocast_mode.autocast
    known = kind.__enter__, kind.__exit__
    kind.__enter__, kind.__exit__ = lambda self: self, lambda self, *_: False  # type: ignore[method-assign]
    try:
        yield
    finally:
        kind.__enter__, kind.__exit__ = known  # type: ignore[method-assign]


@contextmanager
def _no_gradients(pl_module: LightningModule, trainer: Trainer) -> Iterator[None]:
    """Remove the parameters' gradients, and restore them on exit: a step may zero them, a backward pass add to them."""
    stepped = [
        parameter
        for optimizer in trainer.optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    gradients = {id(parameter): (parameter, parameter.grad) for parameter in (*pl_module.parameters(), *stepped)}
    for parameter, _ in gradients.values():
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients.values():
            parameter.grad = gradient


def _all_modules(pl_module: LightningModule) -> list[nn.Module]:
    """The module, its submodules, and the modules in their plain lists, tuples and dicts."""
    modules: dict[int, nn.Module] = {}
    waiting: list[Any] = [pl_module]
    while waiting:
        value = waiting.pop()
        if isinstance(value, nn.Module):
            for module in value.modules():
                if id(module) not in modules:
                    modules[id(module)] = module
                    waiting += [item for item in vars(module).values() if isinstance(item, list | tuple | dict)]
        elif isinstance(value, dict):
            waiting += [item for item in value.values() if isinstance(item, nn.Module)]
        else:
            waiting += [item for item in value if isinstance(item, nn.Module)]
    return list(modules.values())


def seed_streams(module: nn.Module, seed: int) -> None:
    """Seed the global random streams; `muted` restores them."""
    torch.default_generator.manual_seed(seed % 2**63)
    for device in cuda_devices(module):
        torch.cuda.default_generators[device].manual_seed(seed % 2**63)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing, in place of `log`."""


class _Muted(DummyLogger):
    """A logger with the name and paths of another logger, which writes nothing."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    @property
    def name(self) -> Any:
        return self._logger.name

    @property
    def version(self) -> Any:
        return self._logger.version

    @property
    def save_dir(self) -> Any:
        return self._logger.save_dir

    @property
    def log_dir(self) -> Any:
        return self._logger.log_dir

    @property
    def root_dir(self) -> Any:
        return self._logger.root_dir
