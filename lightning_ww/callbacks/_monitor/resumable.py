"""`Resumable`: a callback that uses its restored state only when a fit begins."""

from __future__ import annotations

import weakref
from typing import Any

from typing_extensions import override

from lightning_ww.callbacks._monitor.lightning import CallbackBase, LightningModule, Trainer


class Resumable(CallbackBase):
    """A callback that remembers its run, across checkpoints and fits.

    Lightning also restores callbacks for `trainer.test(ckpt_path=...)`, and when a tuner restores the checkpoint from before
    its trials. Neither may change what a callback remembers of its run.
    """

    _pending: dict[str, Any] | None = None  # a restored state, not used yet
    _seen: tuple[weakref.ref[Any], weakref.ref[Any]] | None = None  # the Trainer and the model of the last fit

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._pending = None  # a state that was not restored for the fit that begins now

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._pending = state_dict

    @override
    def state_dict(self) -> dict[str, Any]:
        # between a restore and the fit that uses it, the restored state is the state to save
        return self._state() if self._pending is None else self._pending

    def _state(self) -> dict[str, Any]:
        """The state to save in a checkpoint: numbers, strings, lists, dicts and tensors only."""
        raise NotImplementedError

    def _go_on(self) -> None:
        """Drop a state that was restored in the middle of a fit: a tuner has restored the state that is there already."""
        self._pending = None

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> tuple[bool, dict[str, Any] | None]:
        """Return whether this fit is a new run (with another Trainer or model), and the restored state, if any."""
        state, self._pending = self._pending, None
        is_elsewhere = bool(trainer.ckpt_path) and state is None  # resumed from a checkpoint without our state
        is_new = (
            is_elsewhere or self._seen is None or self._seen[0]() is not trainer or self._seen[1]() is not pl_module
        )
        self._seen = (weakref.ref(trainer), weakref.ref(pl_module))
        return is_new, state

    def __getstate__(self) -> dict[str, Any]:
        """Leave out attributes that refer to the whole model: Lightning's `log` methods, and the model of the last fit."""
        return {name: value for name, value in vars(self).items() if name not in ("log", "log_dict", "_seen")}
