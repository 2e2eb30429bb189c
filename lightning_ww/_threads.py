"""Other threads of the process that train: what torch offers only for the whole process must not be touched then."""

from __future__ import annotations

import sys
import threading
from pathlib import PurePath

TRAINING = (
    ("pytorch_lightning", "loops", "fit_loop.py"),
    ("lightning", "pytorch", "loops", "fit_loop.py"),
    ("torch", "optim", "optimizer.py"),
    ("torch", "autograd", "__init__.py"),
    ("torch", "_tensor.py"),
)
"""Ends of the paths of files whose code is on the stack of a thread that trains."""


def others_train() -> bool:
    """Tell whether another thread of this process is in the middle of training, as far as its stack shows."""
    if threading.active_count() == 1:
        return False
    own = threading.get_ident()
    for thread, frame in sys._current_frames().items():
        if thread == own:
            continue
        now = frame
        while now is not None:
            if _trains(now.f_code.co_filename):
                return True
            now = now.f_back  # type: ignore[assignment]
    return False


def _trains(filename: str) -> bool:
    parts = PurePath(filename).parts
    return any(parts[-len(end) :] == end for end in TRAINING)
