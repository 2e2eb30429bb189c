"""Muting: the evaluation of a module in the middle of a run without logging or other side effects.

`training_step` logs, updates metrics and buffers, draws random numbers, and appends to lists. Within `muted` its logging is
discarded. Afterward the module and its submodules are restored, to the last bit.
"""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from lightning_ww._threads import others_draw
from lightning_ww._torch import cuda_devices, random_streams_kept
from lightning_ww.callbacks._monitor.guard import RefusedError
from lightning_ww.callbacks._monitor.lightning import DummyLogger
from lightning_ww.callbacks._sandbox.observers import own_hooks, silent_libraries
from lightning_ww.callbacks._sandbox.rollback import Undone

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer

BatchNormMode = Literal["eval", "train"]

EvaluationMode = Literal["eval", "train"]


@contextmanager
def muted(
    trainer: Trainer, pl_module: LightningModule, batch_norm: BatchNormMode = "eval", mode: EvaluationMode = "eval"
) -> Iterator[None]:
    """Silence logging and loggers, switch to evaluation mode, remove gradient hooks; undo everything on exit.

    Args:
        trainer: The Trainer, whose loggers are silenced.
        pl_module: The module that is evaluated.
        batch_norm: Whether batch normalization uses its running statistics (``"eval"``) or the batch's (``"train"``, where
            it is in training mode anyway).
        mode: Whether the module is in evaluation mode (``"eval"``), or as it is, with dropout layers and batch
            normalization in evaluation mode (``"train"``).

    Raises:
        RefusedError: On exit, if something could not be undone.
    """
    undone = Undone()
    with ExitStack() as stack:
        stack.callback(_require, undone)
        stack.callback(undone.run)
        stack.enter_context(_streams_kept(pl_module))
        undone.callback(setattr, trainer, "should_stop", trainer.should_stop)
        undone.callback(setattr, trainer, "loggers", list(trainer.loggers))
        stack.enter_context(_no_gradients(pl_module, trainer))
        if (loop := getattr(trainer.fit_loop, "epoch_loop", None)) is not None and hasattr(loop, "_results"):
            undone.callback(setattr, loop, "_results", loop._results)
            loop._results = type(loop._results)(training=True)  # for a stored reference to `log`
        writers = {id(getattr(logger, "_experiment", None)) for logger in trainer.loggers}
        for module in _all_modules(pl_module):
            attributes = vars(module)
            changed: dict[str, Any] = {
                name: DummyLogger().experiment
                for name, value in attributes.items()
                if value is not None and id(value) in writers
            }
            is_batch_norm = isinstance(module, nn.modules.batchnorm._NormBase)
            is_kept = batch_norm == "train" if is_batch_norm else mode == "train" and not isinstance(module, _DropoutNd)
            changed["training"] = module.training and is_kept
            changed["_backward_hooks"], changed["_backward_pre_hooks"] = OrderedDict(), OrderedDict()
            changed["_forward_hooks"] = own_hooks(module._forward_hooks, trainer)
            changed["_forward_pre_hooks"] = own_hooks(module._forward_pre_hooks, trainer)
            if isinstance(attributes.get("_dtype"), torch.dtype):  # of a LightningModule: that of its copies
                changed["_dtype"] = torch.promote_types(attributes["_dtype"], torch.float32)
            if attributes.get("_compiled_call_impl") is not None:
                changed["_compiled_call_impl"] = None
            if isinstance(original := module._modules.get("_orig_mod"), nn.Module):
                changed["forward"] = original.__call__
            if callable(getattr(module, "log_dict", None)):  # a LightningModule, of either namespace
                changed["log"] = changed["log_dict"] = changed["print"] = _nothing
                changed["_current_fx_name"] = "training_step"
            undone.callback(_restore_some, attributes, {name: attributes.get(name, _ABSENT) for name in changed})
            attributes.update(changed)
        stack.enter_context(silent_libraries())
        trainer.loggers = [_Muted(logger) for logger in trainer.loggers]
        yield


@contextmanager
def _streams_kept(module: nn.Module) -> Iterator[None]:
    """Restore the random streams on exit, unless another thread may draw from them: they are the process's."""
    before, _streams.are_kept = getattr(_streams, "are_kept", True), not others_draw()
    try:
        with random_streams_kept(module) if _streams.are_kept else nullcontext():
            yield
    finally:
        _streams.are_kept = before


_streams = threading.local()  # `are_kept`: whether this thread restores the random streams


def streams_are_kept() -> bool:
    """Tell whether random numbers may be drawn: the streams are restored, and no other thread draws from them."""
    return getattr(_streams, "are_kept", True) and not others_draw()


_ABSENT = object()


def _restore_some(attributes: dict[str, Any], before: dict[str, Any]) -> None:
    for name, value in before.items():
        if value is _ABSENT:
            attributes.pop(name, None)
        else:
            attributes[name] = value


def _require(undone: Undone) -> None:
    """Raise if a restoration failed."""
    if undone.errors:
        error = undone.errors[0]
        raise RefusedError(
            f"An effect of the evaluation could not be undone ({type(error).__name__}: {error}): pass `loss_fn=` with a loss "
            "of weights and batch alone"
        ) from error


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
    """Seed the global random streams, which `muted` restores, unless another thread may draw from them, too."""
    if not streams_are_kept():
        return
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

    # So that `isinstance(self.logger, TensorBoardLogger)` in a step is as in training.
    __class__ = property(lambda self: type(self._logger))

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
