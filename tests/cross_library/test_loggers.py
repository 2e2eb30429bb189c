"""W&B and MLflow themselves, offline: pictures, texts and histograms arrive in their own form, under their own prefix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_ww.drawing.heat_map import WIDTH

CODE = """
import json, sys
sys.path.insert(0, {tests!r})
from pytorch_lightning.loggers import MLFlowLogger, WandbLogger
from helpers.networks import Classifier, data, quiet_trainer
from lightning_ww.callbacks import CurvatureMonitor, WeightSpectrumMonitor
from lightning_ww.callbacks._monitor import clock

clock.DRAWING = 1e9  # pictures are drawn however short the run is
logger = {logger}
callbacks = [
    WeightSpectrumMonitor(metrics=["alpha"], on_error="raise"),
    CurvatureMonitor(every_n_epochs=1, num_steps=3, on_error="raise"),
]
quiet_trainer(logger=logger, max_epochs=1, callbacks=callbacks).fit(Classifier(), data(), data(shuffle=False))
if hasattr(logger.experiment, "summary"):
    told = {{key: value for key, value in dict(logger.experiment.summary).items() if not isinstance(value, (int, float, str))}}
    kinds = {{key: value["_type"] for key, value in told.items() if "_type" in list(value.keys())}}
    with open("kinds.json", "w") as file:
        json.dump(kinds, file)
"""


def pictures(folder: Path, logger: str) -> list[Path]:
    """All that a run with both monitors left there."""
    script = folder / "train.py"
    script.write_text(CODE.format(tests=str(Path(__file__).parents[1]), logger=logger))
    environment = {**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true", "WANDB_SILENT": "true"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=folder, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return sorted(folder.rglob("*.png"))


def is_a_map(path: Path) -> bool:
    """In the colors of one, and as wide."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    colored = pixels.max(axis=2).astype(int) - pixels.min(axis=2) > 100
    return bool(pixels.shape[1] == WIDTH and colored.mean() > 0.01 and len(np.unique(pixels[colored], axis=0)) > 50)


@pytest.mark.peers
def test_wandb_has_each_picture_of_each_measurement(tmp_path: Path) -> None:
    found = pictures(tmp_path, 'WandbLogger(save_dir=".", offline=True, prefix="mine")')
    names = [f"{path.parent.name}/{path.name.rpartition('_')[0].rpartition('_')[0]}" for path in found]
    for name, times in (("ww.maps/alpha", 2), ("ww.spectrum/hidden", 2), ("curvature/spectrum", 2)):
        assert names.count(f"mine-{name}") == times, names
    assert all(is_a_map(path) for path in found if ".maps" in path.parent.name)
    kinds = json.loads((tmp_path / "kinds.json").read_text())
    assert kinds["mine-ww.esd/hidden"] == "histogram"
    assert kinds["mine-ww/report"] == "table-file"
    tables = [json.loads(path.read_text()) for path in tmp_path.rglob("*.table.json") if "ww" in str(path)]
    assert any("| `hidden` | 32 × 24 |" in table["data"][0][0] for table in tables)


@pytest.mark.peers
def test_mlflow_has_a_file_for_each_step_of_each_picture(tmp_path: Path) -> None:
    found = pictures(tmp_path, 'MLFlowLogger(tracking_uri="file:./kept", prefix="mine")')
    names = ["/".join(path.parts[-3:]) for path in found]
    for name in ("ww.maps/alpha", "ww.spectrum/hidden", "curvature/spectrum", "curvature.maps/spectrum"):
        assert [path for path in names if path.startswith(f"mine-{name}/")] == [
            f"mine-{name}/step_{step}.png" for step in (0, 5)
        ]
    assert all(is_a_map(path) for path, name in zip(found, names, strict=True) if ".maps" in name)
    (text,) = tmp_path.rglob("mine-ww/report/step_5.md")
    assert "| `hidden` | 32 × 24 |" in text.read_text()


ALERTS = """
import sys
sys.path.insert(0, {tests!r})
from pytorch_lightning.loggers import WandbLogger
from helpers.collapsing import Collapse, Still
from helpers.networks import data, quiet_trainer
from lightning_ww.callbacks import SpectralEarlyStopping, WeightSpectrumMonitor

watching = SpectralEarlyStopping("rank_collapse", 2, min_epochs=0)
callbacks = [WeightSpectrumMonitor(on_error="raise"), Collapse(1, 2, 3), watching]
quiet_trainer(logger=WandbLogger(save_dir=".", offline=True), max_epochs=4, callbacks=callbacks).fit(Still(), data(), data())
"""


@pytest.mark.peers
def test_wandb_has_an_alert_for_the_flag_and_one_for_the_stop(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(ALERTS.format(tests=str(Path(__file__).parents[1])))
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        env={**os.environ, "WANDB_SILENT": "true"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = tmp_path.rglob("*.wandb")
    kept = file.read_bytes()
    assert kept.count(b"lightning-ww: rank_collapse") == 1
    assert kept.count(b"lightning-ww stops: rank_collapse") == 1
