"""A line for each measurement, in a file of the run's own."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fits import curvature_monitor as monitor
from helpers.fits import fit
from helpers.networks import data, quiet_trainer
from helpers.tiny import Tiny
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger

from lightning_ww import Moment
from lightning_ww.callbacks import CurvatureMonitor
from lightning_ww.callbacks._curvature.spectrum_file import SpectrumFile
from lightning_ww.curvature import spectral_density
from lightning_ww.measurements import CurvatureMeasurement


def steps(watched: CurvatureMonitor) -> list[int]:
    return [past.step for past in watched.history]


def test_raw_nodes_and_weights_are_in_a_file_beside_the_logs(tmp_path: Path) -> None:
    watched = monitor(log_key_prefix="a/")
    fit(
        watched, logger=[CSVLogger(str(tmp_path / "csv"), name="", version=""), TensorBoardLogger(str(tmp_path / "tb"))]
    )
    lines = [json.loads(line) for line in (tmp_path / "csv" / "a-curvature.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == steps(watched)
    for line, past in zip(lines, watched.history, strict=True):
        assert line["density"]["nodes"] == past.density.nodes.tolist()
        assert line["density"]["weights"] == past.density.weights.tolist()
        assert line["summary"] | {"overhead": past.summary.get("overhead")} == {"overhead": None} | past.summary
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["a/curvature/sharpness"]]
    assert [float(row["a/curvature/sharpness"]) for row in rows] == pytest.approx(
        [past.density.sharpness for past in watched.history]
    )


class Remote(DummyLogger):
    """Keeps its numbers elsewhere, and has one folder for all runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = str(folder)

    @property
    def save_dir(self) -> str:
        return self._folder


def test_a_new_run_in_the_same_folder_has_a_file_of_its_own_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    def train(epochs: int, checkpoint: str | None = None) -> tuple[CurvatureMonitor, Trainer]:
        watched = CurvatureMonitor(every_n_epochs=1, num_steps=3)
        trainer = quiet_trainer(callbacks=[watched], logger=Remote(tmp_path), max_epochs=epochs)
        trainer.fit(Tiny(), data(), data(shuffle=False), ckpt_path=checkpoint)
        return watched, trainer

    def numbers(name: str) -> list[int]:
        return [json.loads(line)["number"] for line in (tmp_path / name).read_text().splitlines()]

    train(1)
    train(2)[1].save_checkpoint(tmp_path / "last.ckpt")
    assert (numbers("curvature.jsonl"), numbers("curvature.1.jsonl")) == ([0, 1], [0, 1, 2])
    watched, _ = train(3, str(tmp_path / "last.ckpt"))
    assert numbers("curvature.jsonl") == [0, 1]
    assert numbers("curvature.1.jsonl") == [past.number for past in watched.history]


def measured(number: int) -> CurvatureMeasurement:
    density = spectral_density(torch.diag(torch.tensor([1.0, 2.0])).double(), num_steps=2)
    return CurvatureMeasurement(
        moment=Moment(number, number, number, 0, False), summary={}, density=density, engine="x"
    )


def written(path: Path) -> list[int]:
    return [json.loads(line)["number"] for line in path.read_text().splitlines()]


def of_run(folder: Path, numbers: range, state: Any = None) -> SpectrumFile:
    file = SpectrumFile(str(folder), "", state)
    for number in numbers:
        file.append(measured(number))
    return file


def test_two_runs_that_go_on_in_turn_each_keep_their_own_file(tmp_path: Path) -> None:
    first, second = of_run(tmp_path, range(3)), of_run(tmp_path, range(2))
    backup = tmp_path / "curvature-backup.jsonl"
    backup.write_text("mine\n")
    of_run(tmp_path, range(2, 5), first.state_dict())
    of_run(tmp_path, range(2, 4), second.state_dict())
    assert written(tmp_path / "curvature.jsonl") == [0, 1, 2, 3, 4]
    assert written(tmp_path / "curvature.1.jsonl") == [0, 1, 2, 3]
    assert backup.read_text() == "mine\n"


def test_a_file_of_another_run_under_the_own_name_is_left_alone(tmp_path: Path) -> None:
    file = of_run(tmp_path, range(2))
    (tmp_path / "curvature.jsonl").rename(tmp_path / "elsewhere")
    of_run(tmp_path, range(4))
    of_run(tmp_path, range(2, 3), file.state_dict())
    assert written(tmp_path / "curvature.jsonl") == [0, 1, 2, 3]
    assert written(tmp_path / "curvature.1.jsonl") == [2]


@pytest.mark.parametrize("damage", [b'{"number": 7, "su', b"\xff\xfe\n", b"[1]\n", b"words\n", b"null\n"])
def test_lines_that_cannot_be_read_are_dropped_and_said(damage: bytes, tmp_path: Path) -> None:
    file = of_run(tmp_path, range(3))
    path = tmp_path / "curvature.jsonl"
    path.write_bytes(path.read_bytes() + damage)
    said = SpectrumFile(str(tmp_path), "", file.state_dict()).append(measured(3))
    assert said == f"dropped 1 of the lines of `{path}`, which it could not read."
    assert written(path) == [0, 1, 2, 3]


def test_a_line_without_its_end_is_kept_whole(tmp_path: Path) -> None:
    file = of_run(tmp_path, range(2))
    path = tmp_path / "curvature.jsonl"
    path.write_text(path.read_text().rstrip())
    assert SpectrumFile(str(tmp_path), "", file.state_dict()).append(measured(2)) is None
    assert written(path) == [0, 1, 2]


def test_a_rewriting_that_fails_loses_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = of_run(tmp_path, range(4))

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="no space"):
            SpectrumFile(str(tmp_path), "", file.state_dict()).append(measured(2))
    assert written(tmp_path / "curvature.jsonl") == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["curvature.jsonl"]


def test_half_a_line_of_a_full_disk_is_gone_once_there_is_space(tmp_path: Path) -> None:
    file, path = of_run(tmp_path, range(2)), tmp_path / "curvature.jsonl"
    with path.open("a") as stream:
        stream.write('{"half')
    file._is_open = False  # as after a write that failed
    file.append(measured(2))
    assert written(path) == [0, 1, 2]


def test_a_pipe_under_the_own_name_is_left_alone_and_not_waited_for(tmp_path: Path) -> None:
    file = of_run(tmp_path, range(1))
    state, pipe = file.state_dict(), tmp_path / "curvature.jsonl"
    pipe.unlink()
    os.mkfifo(pipe)
    file.append(measured(1))  # the name is taken in the middle of a run
    of_run(tmp_path, range(2, 3), state)
    assert pipe.is_fifo()
    assert written(tmp_path / "curvature.1.jsonl") == [1]
    assert written(tmp_path / "curvature.2.jsonl") == [2]
