"""Every test starts from the same random streams, in a folder of its own."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test writes without saying where does not land in the project."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def no_bound_on_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw pictures when it is their turn, however short the run is."""
    from lightning_ww.callbacks._monitor import clock

    monkeypatch.setattr(clock, "DRAWING", 1e9)
