"""A line for each measurement, in a file of the run's own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from helpers.fits import curvature_monitor as monitor
from helpers.fits import fit
from helpers.networks import data, quiet_trainer
from helpers.tiny import Tiny
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger

from lightning_ww.callbacks import CurvatureMonitor


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
        assert line["summary"] == past.summary
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
