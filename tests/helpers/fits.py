"""Short fits with monitors that raise their errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from helpers.networks import Classifier, data, quiet_trainer
from lightning_ww.callbacks import CurvatureMonitor, WeightSpectrumMonitor


def weight_monitor(**arguments: Any) -> WeightSpectrumMonitor:
    return WeightSpectrumMonitor(**({"on_error": "raise"} | arguments))


def curvature_monitor(**arguments: Any) -> CurvatureMonitor:
    defaults: dict[str, Any] = {"every_n_epochs": 1, "on_error": "raise"}
    return CurvatureMonitor(**(defaults | arguments))


def fit(
    *callbacks: Callback, model: LightningModule | None = None, ckpt_path: Path | None = None, **arguments: Any
) -> Trainer:
    trainer = quiet_trainer(callbacks=list(callbacks), **arguments)
    trainer.fit(model or Classifier(), data(), data(32, seed=1, shuffle=False), ckpt_path=ckpt_path)
    return trainer


def fit_with_checkpoints(
    directory: Path, epochs: int, ckpt: Path | None = None, **arguments: Any
) -> tuple[Trainer, Any]:
    """Train with checkpoints under ``directory``; the monitor is returned too."""
    seed_everything(0, verbose=False)
    monitor = WeightSpectrumMonitor(**({"on_error": "raise"} | arguments))
    trainer = quiet_trainer(
        max_epochs=epochs,
        callbacks=[monitor, ModelCheckpoint(directory / "checkpoints", save_last=True)],
        logger=CSVLogger(str(directory), name="", version=""),
        enable_checkpointing=True,
    )
    trainer.fit(Classifier(), data(shuffle=False), data(32, shuffle=False), ckpt_path=ckpt and str(ckpt))
    return trainer, monitor


def last(directory: Path) -> Path:
    return directory / "checkpoints" / "last.ckpt"
