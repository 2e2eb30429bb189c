"""What a copy in another process leaves comes to its original, once, and nothing else stays behind."""

from __future__ import annotations

import gc
import multiprocessing
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_ww.callbacks._monitor.handing_over import Heir


class Owner:
    def __init__(self) -> None:
        self.heir = Heir(self)


def launched(kind: str, *, is_first: bool = True) -> Any:
    launcher = type(kind, (), {})()
    return SimpleNamespace(strategy=SimpleNamespace(launcher=launcher), is_global_zero=is_first)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def left_by_a_copy(owner: Owner, trainer: Any, content: Any) -> None:
    process = multiprocessing.get_context("fork").Process(target=owner.heir.leave, args=(trainer, content))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_what_a_started_process_leaves_is_taken_once(tmp_path: Path) -> None:
    owner = Owner()
    assert owner.heir.take() is None
    left_by_a_copy(owner, launched("_MultiProcessingLauncher"), {"a": 1})
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert owner.heir.take() == {"a": 1}
    assert owner.heir.take() is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "trainer", [launched("_MultiProcessingLauncher", is_first=False), launched("_SubprocessScriptLauncher")]
)
def test_others_leave_nothing(trainer: Any, tmp_path: Path) -> None:
    owner = Owner()
    left_by_a_copy(owner, trainer, 1)
    owner.heir.leave(launched("_MultiProcessingLauncher"), 1)  # the original itself
    assert not list(tmp_path.iterdir())


def test_what_nobody_takes_goes_with_the_original(tmp_path: Path) -> None:
    owner = Owner()
    left_by_a_copy(owner, launched("_MultiProcessingLauncher"), 1)
    assert list(tmp_path.iterdir())
    del owner
    gc.collect()
    assert not list(tmp_path.iterdir())
