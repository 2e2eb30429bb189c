"""What is drawn beside training is what would be drawn here, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.beside import at_once, children
from helpers.drawn import fit
from helpers.networks import Classifier, data, quiet_trainer
from pytorch_lightning import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ww.callbacks import CurvatureMonitor, WeightSpectrumMonitor
from lightning_ww.callbacks._monitor import beside
from lightning_ww.callbacks._monitor.beside import has_room


def files(folder: str | None) -> dict[str, list[tuple[int, bytes]]]:
    """Steps and files of the pictures, by tag."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return {
        tag: [(event.step, event.encoded_image_string) for event in events.Images(tag)]
        for tag in events.Tags()["images"]
    }


def monitors(**options: Any) -> tuple[WeightSpectrumMonitor, CurvatureMonitor]:
    return WeightSpectrumMonitor(**options), CurvatureMonitor(every_n_epochs=1, **options)


def drawn(folder: Path, *others: Callback, **options: Any) -> dict[str, list[tuple[int, bytes]]]:
    trainer = fit(*monitors(**options), *others, logger=TensorBoardLogger(str(folder)))
    return files(trainer.logger.log_dir)


class Looking(Callback):
    """Waits for the process of the first monitor, and looks at it."""

    def __init__(self, action: Any = lambda process: None) -> None:
        self.action = action
        self.processes: set[int] = set()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        worker = trainer.callbacks[0]._run.worker
        if worker is not None and trainer.current_epoch >= 2 and not self.processes:
            worker.submit(int).result()
            self.processes.add(worker.process_id)
            self.action(worker.process_id)


def test_pictures_from_beside_are_those_that_are_drawn_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = drawn(tmp_path / "here", execution="sync")
    at_once(monkeypatch)
    before, looking = children(), Looking()
    found = drawn(tmp_path / "beside", looking)
    assert looking.processes
    assert children() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lightning-ww")]
    assert found.keys() == here.keys()
    compared = 0
    for tag, pictures in found.items():
        known = dict(here[tag])
        same = [(step, file == known[step]) for step, file in pictures if step in known]
        assert all(is_equal for _, is_equal in same), tag
        compared += len(same)
    assert compared >= len(here)


def test_a_process_that_is_killed_costs_one_warning_and_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = drawn(tmp_path / "here", execution="sync")
    at_once(monkeypatch)
    before = children()
    found = drawn(tmp_path / "beside", Looking(lambda process: os.kill(process, signal.SIGKILL)))
    told = [record.getMessage() for record in caplog.records if "beside it has ended" in record.getMessage()]
    assert 1 <= len(told) <= 2  # once for each monitor
    assert found.keys() == here.keys()
    assert "ww.spectrum/middle.0" in found  # flagged at about that time
    assert children() == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_end_by_an_error_leaves_nothing_behind(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 3:
                raise error

    at_once(monkeypatch)
    before, looking = children(), Looking()
    trainer = quiet_trainer(
        callbacks=[*monitors(), looking, Failing()], logger=TensorBoardLogger(str(tmp_path)), max_epochs=5
    )
    with pytest.raises((ValueError, SystemExit, KeyboardInterrupt)):
        trainer.fit(Classifier(), data(), data(shuffle=False))
    assert looking.processes
    assert children() == before
    assert "ww.maps/alpha" in files(trainer.logger.log_dir)  # type: ignore[union-attr]


@pytest.mark.parametrize("options", [{"execution": "sync"}, {"panels": False}])
def test_without_need_there_is_no_process(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    looking = Looking()
    drawn(tmp_path, looking, **options)
    assert not looking.processes


def test_a_short_fit_has_no_process(tmp_path: Path) -> None:
    looking = Looking()
    drawn(tmp_path, looking)
    assert not looking.processes


@pytest.mark.parametrize(
    ("device", "workers", "devices", "left", "room"),
    [
        *(("cpu", 0, 1, 10**10, True), ("cpu", 0, 2, 10**10, False), ("cpu", 5, 1, 10**10, False)),
        *(("cuda", 0, 4, 10**10, True), ("cuda", 0, 5, 10**10, False), ("cuda", 0, 4, 7 * 10**9, False)),
        *(("cpu", 0, 1, 10**9, False), ("cpu", 0, 1, None, True)),
    ],
)
def test_there_is_room_for_a_process_if_training_needs_neither_its_core_nor_its_memory(
    device: str, workers: int, devices: int, left: int | None, room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "usable_cores", lambda: 5)
    monkeypatch.setattr(beside, "available_bytes", lambda device: left)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device(device)),
        num_devices=devices,
        fit_loop=SimpleNamespace(),
        train_dataloader=SimpleNamespace(num_workers=workers),
    )
    assert has_room(trainer) == room
