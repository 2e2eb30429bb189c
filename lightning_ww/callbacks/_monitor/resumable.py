"""`Resumable`: a callback whose restored state is taken up when a fit begins, and not before."""

from __future__ import annotations

import weakref
from typing import Any

from typing_extensions import override

from lightning_ww.callbacks._monitor.lightning import CallbackBase, LightningModule, Trainer


class Resumable(CallbackBase):
    """A callback that remembers its run, across checkpoints and fits.

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
        """Leave out what would drag the whole model along: Lightning's `log` methods, and the model last seen."""
        return {name: value for name, value in vars(self).items() if name not in ("log", "log_dict", "_seen")}
