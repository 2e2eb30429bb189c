"""Files that no reader ever sees half of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightning_ww._files import written_beside


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with written_beside(path) as partial:
        partial.write_text("half")
        assert not path.exists()
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]
    assert path.read_text() == "half"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with written_beside(path) as partial:
            partial.write_text("new")
            raise error

    with pytest.raises(error):
        write()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_what_a_killed_process_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "a[1].txt"
    old, new, other = tmp_path / "a[1].1.partial", tmp_path / "a[1].2.partial", tmp_path / "a1.1.partial"
    for left in (old, new, other):
        left.write_text("half")
    for left in (old, other):
        os.utime(left, (0, 0))
    with written_beside(path) as partial:
        partial.write_text("whole")
    assert {file.name for file in tmp_path.iterdir()} == {path.name, new.name, other.name}


def test_a_pipe_under_the_name_to_write_to_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    os.mkfifo(path.with_suffix(f".{os.getpid()}.partial"))
    with written_beside(path) as partial:
        partial.write_text("whole")
    assert path.read_text() == "whole"
