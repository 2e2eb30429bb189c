"""`pytorch_lightning` and `lightning.pytorch`, in one place. No other file of the package imports Lightning.

They are two copies of the same code whose classes differ. A callback that derives from both `Callback`s works in lists, alone
and from LightningCLI with either; so `CallbackBase` has as many bases as the process has namespaces: those already imported,
else those installed. A namespace that is imported later still accepts our callbacks in lists.
"""

from __future__ import annotations

import logging
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

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
    """What our callbacks derive from: the `Callback` of each namespace."""


def callbacks(trainer: Trainer) -> list[Any]:
    """The Trainer's callbacks."""
    return list(trainer.callbacks)  # type: ignore[attr-defined]


def warn(trainer: Trainer, message: str) -> None:
    """One warning, from the process of rank zero. Where warnings are errors, a line in the log: the run goes on."""
    if trainer.is_global_zero:
        try:
            warnings.warn(message, UserWarning, stacklevel=3)
        except UserWarning:
            logging.getLogger("lightning_ww").warning(message)


def inform(trainer: Trainer, message: str) -> None:
    """One line of information, by the logger whose lines a Lightning user sees."""
    if trainer.is_global_zero:
        logging.getLogger(type(trainer).__module__).info(message)


__all__ = ["CallbackBase", "DummyLogger", "LightningModule", "Trainer", "callbacks", "inform", "warn"]
