"""The imports from `pytorch_lightning` and `lightning.pytorch`. No other file of the package imports Lightning.

The two namespaces are copies of the same code, with different classes. A callback that derives from both `Callback`s works
with either, in lists, alone, and from LightningCLI. So `CallbackBase` derives from the `Callback` of each namespace that is
already imported, or, if none is, of each that is installed. A namespace imported later accepts our callbacks in lists, too.
"""

from __future__ import annotations

import logging
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch.distributed

NAMESPACES = ("pytorch_lightning", "lightning.pytorch")


def _modules() -> list[Any]:
    names = [name for name in NAMESPACES if name in sys.modules]
    if not names:
        names = [name for name in NAMESPACES if find_spec(name.split(".")[0]) is not None]
    return [import_module(name) for name in names]


if TYPE_CHECKING:
    from pytorch_lightning import Callback as _Both
    from pytorch_lightning import LightningModule, Trainer
    from pytorch_lightning.loggers.logger import DummyLogger
else:
    _loaded = _modules()
    _Both = type("_Both", tuple(module.Callback for module in _loaded), {})
    LightningModule, Trainer = _loaded[0].LightningModule, _loaded[0].Trainer
    DummyLogger = import_module(f"{_loaded[0].__name__}.loggers.logger").DummyLogger


class CallbackBase(_Both):
    """The base class of our callbacks, derived from the `Callback` of each namespace."""


def callbacks(trainer: Trainer) -> list[Any]:
    """The Trainer's callbacks."""
    return list(trainer.callbacks)  # type: ignore[attr-defined]


def from_all(trainer: Trainer, value: Any) -> list[Any]:
    """The values of all processes, in their order; a collective call."""
    values: list[Any] = [value] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def told_by_any(trainer: Trainer, message: str) -> str:
    """The first message of all processes that is not empty; a collective call."""
    return next(filter(None, from_all(trainer, message)), "")


def training_loaders(trainer: Trainer) -> list[Any]:
    """The loaders of training, one by one, however they are combined."""
    combined = getattr(trainer.fit_loop, "_combined_loader", None)
    return list(getattr(combined, "flattened", None) or [trainer.train_dataloader])


def warn(trainer: Trainer, message: str) -> None:
    """Warn from the process of rank zero. If warnings are errors, write to the log instead, so that the run continues."""
    if trainer.is_global_zero:
        try:
            warnings.warn(message, UserWarning, stacklevel=3)
        except UserWarning:
            logging.getLogger("lightning_ww").warning(message)


def inform(trainer: Trainer, message: str) -> None:
    """Write a line to Lightning's own log, from the process of rank zero."""
    if trainer.is_global_zero:
        logging.getLogger(type(trainer).__module__).info(message)


__all__ = [
    "CallbackBase",
    "DummyLogger",
    "LightningModule",
    "Trainer",
    "callbacks",
    "from_all",
    "inform",
    "told_by_any",
    "training_loaders",
    "warn",
]
