"""Runs that are killed at any moment, and resumed, have the history and the files of an uninterrupted one."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, sys, warnings
warnings.filterwarnings("ignore")
sys.path.insert(0, {tests!r})
from pathlib import Path
from pytorch_lightning import seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from helpers.networks import Classifier, data, quiet_trainer
from lightning_ww.callbacks import CurvatureMonitor, SpectralEarlyStopping, WeightSpectrumMonitor

seed_everything(0, verbose=False)
folder = Path(sys.argv[1])
weights, curvature = WeightSpectrumMonitor(), CurvatureMonitor(every_n_epochs=1, num_steps=8)
keep = ModelCheckpoint(folder / "checkpoints", save_last=True, enable_version_counter=False)
trainer = quiet_trainer(
    max_epochs=6,
    callbacks=[weights, curvature, SpectralEarlyStopping(), keep],
    logger=CSVLogger(str(folder), name="", version=""),
    enable_checkpointing=True,
)
last = folder / "checkpoints" / "last.ckpt"
print("begun", flush=True)
trainer.fit(Classifier(), data(shuffle=False), data(32, shuffle=False), ckpt_path=str(last) if last.exists() else None)
found = {{
    "weights": [[past.number, past.step, past.value("hidden", "distance_from_init")] for past in weights.history],
    "curvature": [[past.number, past.step] for past in curvature.history],
}}
(folder / "found.json").write_text(json.dumps(found))
"""


def attempt(script: Path, folder: Path, seconds: float | None) -> bool:
    """Run until the end, or kill the run after some seconds of training; return whether it ended by itself."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    if seconds is not None:
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL), errors[-3000:]
    return process.returncode == 0


def found(folder: Path) -> Any:
    numbers = [json.loads(line)["number"] for line in (folder / "curvature.jsonl").read_text().splitlines()]
    return json.loads((folder / "found.json").read_text()) | {"lines": numbers}


@pytest.mark.slow
def test_seventeen_killed_runs_are_resumed_whole(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1])))
    began = time.perf_counter()
    assert attempt(script, tmp_path / "whole", None)
    whole, took = found(tmp_path / "whole"), time.perf_counter() - began
    assert [step for _, step, _ in whole["weights"]] == [0, 6, 12, 18, 24, 30, 36]
    rng, kills = random.Random(0), 0
    for run in range(4):
        folder = tmp_path / f"killed-{run}"
        for _ in range(5 if run == 3 else 4):
            kills += not attempt(script, folder, rng.uniform(0, took / 6))
        if not (folder / "found.json").exists():
            assert attempt(script, folder, None)
        assert found(folder) == whole
        assert len(list(folder.glob("initial_weights-*.pt"))) == 1
    assert kills >= 15
