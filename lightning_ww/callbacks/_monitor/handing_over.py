"""What a process of `ddp_spawn` or `ddp_fork` leaves to the one in which the user's program goes on."""

from __future__ import annotations

import os
import pickle
import secrets
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ww._files import written_beside

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import Trainer

LAUNCHERS = ("_MultiProcessingLauncher", "_XLALauncher")
"""Lightning's classes that start all processes of a fit, from one that only waits for them."""


class Heir:
    """A file through which an object in a process that Lightning has started leaves something to its original.

    The file has a random name in the folder for temporary files. It is removed when it is read, or when the original goes.

    Args:
        owner: The original.
    """

    def __init__(self, owner: object) -> None:
        self._process = os.getpid()
        self._path = Path(tempfile.gettempdir()) / f"lightning-ww-{secrets.token_hex(8)}.pickle"
        weakref.finalize(owner, _remove, self._path, self._process)

    def leave(self, trainer: Trainer, content: Any) -> None:
        """Leave something, from the process of rank zero, if this is a process that Lightning has started."""
        launcher = getattr(trainer.strategy, "launcher", None)
        is_started = type(launcher).__name__ in LAUNCHERS and os.getpid() != self._process
        if is_started and trainer.is_global_zero:
            with written_beside(self._path) as partial:
                partial.touch(mode=0o600)
                partial.write_bytes(pickle.dumps(content))

    def take(self) -> Any:
        """What was left, or ``None``."""
        if os.getpid() != self._process or not self._path.is_file():
            return None
        try:
            return pickle.loads(self._path.read_bytes())
        finally:
            _remove(self._path, self._process)


def _remove(path: Path, process: int) -> None:
    if os.getpid() == process:  # not in a copy
        with suppress(OSError):
            path.unlink()
