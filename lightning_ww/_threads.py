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

LOADING = (
    ("torch", "utils", "data", "dataloader.py"),
    ("torch", "utils", "data", "_utils", "fetch.py"),
    ("torch", "utils", "data", "sampler.py"),
)
"""Ends of the paths of files whose code is on the stack of a thread that makes batches."""

LIBRARIES = {
    "torch",
    "tensorboard",
    "tensorboardX",
    "tqdm",
    "wandb",
    "pytorch_lightning",
    "lightning",
    "asyncio",
    "rich",
}
"""Packages whose own threads do not touch a module."""

OWN = "lightning-ww"
"""The beginning of the names of this package's own threads."""


def others_run() -> bool:
    """Tell whether a thread of the user's runs beside this one, rather than only those of libraries."""
    return any(
        thread is not threading.current_thread()
        and thread is not threading.main_thread()
        and not _is_of_library(thread)
        for thread in threading.enumerate()
    )


def others_train() -> bool:
    """Tell whether another thread of this process is in the middle of training, as far as its stack shows."""
    return _others_are_in(TRAINING)


def others_draw() -> bool:
    """Tell whether another thread trains or makes batches, and so may draw from the random streams of the process."""
    return _others_are_in(TRAINING + LOADING)


def _others_are_in(files: tuple[tuple[str, ...], ...]) -> bool:
    """Tell whether code of one of these files is on the stack of another thread."""
    if threading.active_count() == 1:
        return False
    own = threading.get_ident()
    for thread, frame in sys._current_frames().items():
        if thread == own:
            continue
        now = frame
        while now is not None:
            parts = PurePath(now.f_code.co_filename).parts
            if any(parts[-len(end) :] == end for end in files):
                return True
            now = now.f_back  # type: ignore[assignment]
    return False


def _is_of_library(thread: threading.Thread) -> bool:
    if thread.name.startswith(OWN):
        return True
    target = getattr(thread, "_target", None)
    owners = {type(thread).__module__, getattr(target, "__module__", None) or ""} - {"threading"}
    return any(owner.split(".")[0] in LIBRARIES for owner in owners)
