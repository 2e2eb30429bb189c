"""`pytorch_lightning` and `lightning.pytorch`, in one place. No other file of the package imports Lightning.

They are two copies of the same code whose classes differ. A callback that derives from both `Callback`s works in lists, alone
and from LightningCLI with either; so `CallbackBase` has as many bases as the process has namespaces: those already imported,
else those installed. A namespace that is imported later still accepts our callbacks in lists.
"""

from __future__ import annotations

import logging
import sys
import warnings
import weakref
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from typing_extensions import override

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
    """What our callbacks derive from: state that is taken up when a fit begins, and not before.

    Lightning restores callbacks also for `trainer.test(ckpt_path=...)`, and when a tuner puts back the checkpoint that it took
    before its trials. Neither may change what a callback remembers of its run.
    """

    _pending: dict[str, Any] | None = None  # restored, and not taken up yet
    _seen: tuple[weakref.ref[Any], weakref.ref[Any]] | None = None  # the Trainer and the model of the last fit

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._pending = None  # what was restored for something else than the fit that begins now

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._pending = state_dict

    @override
    def state_dict(self) -> dict[str, Any]:
        # saved between a restore and the fit that takes it up, what was restored is the state
        return self._state() if self._pending is None else self._pending

    def _state(self) -> dict[str, Any]:
        """What is remembered across a resume: numbers, strings, lists, dicts and tensors alone."""
        raise NotImplementedError

    def _go_on(self) -> None:
        """Forget what was restored in the middle of a fit: a tuner has put back what is there anyway."""
        self._pending = None

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> tuple[bool, dict[str, Any] | None]:
        """Whether this fit is a new run (another Trainer or model than the last), and the state to take up, if any."""
        state, self._pending = self._pending, None
        is_elsewhere = bool(trainer.ckpt_path) and state is None  # resumed from a checkpoint that knows nothing of us
        is_new = (
            is_elsewhere or self._seen is None or self._seen[0]() is not trainer or self._seen[1]() is not pl_module
        )
        self._seen = (weakref.ref(trainer), weakref.ref(pl_module))
        return is_new, state

    def __getstate__(self) -> dict[str, Any]:
        """Without what would drag the whole model along: Lightning's `log` methods, and the model last seen."""
        return {name: value for name, value in vars(self).items() if name not in ("log", "log_dict", "_seen")}


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
