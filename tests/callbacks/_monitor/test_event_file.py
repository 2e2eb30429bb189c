"""`events.jsonl`: where it is, what is added, and runs that have none."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from helpers.fits import fit
from helpers.networks import Classifier
from pytorch_lightning.loggers import CSVLogger

from lightning_ww import Flag, Moment
from lightning_ww.callbacks import WeightSpectrumMonitor
from lightning_ww.callbacks._monitor.event_file import EventFile, flag_event


def event(layer: str) -> dict[str, Any]:
    return flag_event("flag", Moment(1, 8, 7, 0, False), Flag("t", layer, "ä > 1", "Meaning.", "Lever."))


def test_lines_are_added_and_never_rewritten(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "new", "version_3")
    file.append([event("a"), event("b")])
    file.append([])
    first = (tmp_path / "new" / "events.jsonl").read_text("utf-8")
    file.append([event("c")])
    text = (tmp_path / "new" / "events.jsonl").read_text("utf-8")
    assert text.startswith(first)
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["layer"] for line in lines] == ["a", "b", "c"]
    assert lines[0] | {"time": ""} == {"time": "", "run": "version_3", "event": "flag", "step": 8, "epoch": 0} | vars(
        Flag("t", "a", "ä > 1", "Meaning.", "Lever.")
    )
    assert abs((datetime.now(timezone.utc) - datetime.fromisoformat(lines[0]["time"])).total_seconds()) < 60


def test_without_a_folder_nothing_is_written() -> None:
    EventFile(None).append([event("a")])


def test_what_stands_from_the_start_has_its_event(tmp_path: Path) -> None:
    model = Classifier()
    with torch.no_grad():
        model.hidden.weight[2:] = model.hidden.weight[:1]
    fit(WeightSpectrumMonitor(), model=model, logger=CSVLogger(tmp_path, "", ""), max_epochs=1)
    [line] = (tmp_path / "events.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert (found["event"], found["step"], found["trigger"], found["layer"]) == (
        "from_start",
        0,
        "rank_collapse",
        "hidden",
    )


class Versionless:
    """A logger that cannot tell its version."""

    @property
    def version(self) -> str:
        raise RuntimeError("no version")


def test_a_logger_without_a_version_costs_the_run_nothing(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(log_dir=str(tmp_path), loggers=[Versionless()], is_global_zero=True)
    assert EventFile.of(trainer) == EventFile(tmp_path, "")


def test_healthy_runs_and_fast_dev_runs_have_none(tmp_path: Path) -> None:
    fit(WeightSpectrumMonitor(), logger=CSVLogger(tmp_path / "a", "", ""), max_epochs=1)
    fit(WeightSpectrumMonitor(), logger=False, max_epochs=1)
    assert not list(tmp_path.rglob("events.jsonl"))
