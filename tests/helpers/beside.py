"""A process beside training from the first picture on, on any machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_ww.callbacks._monitor import beside

CORES = 1000


def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the process in short fits, too, as if there were cores to spare."""
    monkeypatch.setattr(beside, "STARTED_AFTER", -1.0)
    monkeypatch.setattr(beside, "usable_cores", lambda: CORES)
    monkeypatch.setattr(beside, "available_bytes", lambda device: None)


def children() -> set[int]:
    """The processes that this one has started and that still run."""
    own = Path("/proc/self/task")
    return {int(one) for task in own.iterdir() for one in (task / "children").read_text().split()}
