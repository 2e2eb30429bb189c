"""Files that are written beside their place and then renamed, so that no reader ever sees half of one."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STALE = 3600
"""The age in seconds from which a half-written file is taken for one that nobody writes any more."""


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Write a file under another name, and rename it on exit; half-written ones of killed processes are removed.

    Args:
        path: The file to replace. Its folder is made if it is missing.

    Yields:
        The path to write to. On an error, what was written there is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{glob.escape(path.stem)}.*.partial"):
        with suppress(OSError):  # another process may have removed it
            if time.time() - left.lstat().st_mtime > STALE:
                left.unlink()
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        partial.unlink(missing_ok=True)  # a pipe of that name would be waited for
        yield partial
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
