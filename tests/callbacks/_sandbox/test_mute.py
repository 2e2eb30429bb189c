"""Silence while a module is evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.networks import Batch, data, quiet_trainer
from helpers.tiny import Tiny
from pytorch_lightning.loggers import CSVLogger

from lightning_ww.callbacks import CurvatureMonitor


def test_loggers_say_where_they_write_while_they_are_silent(tmp_path: Path) -> None:
    asked = []

    class Asking(Tiny):
        def training_step(self, batch: Batch, batch_idx: int) -> Any:
            logger: Any = self.logger
            asked.append((self.training, logger.name, logger.version, logger.save_dir, logger.log_dir, logger.root_dir))
            return super().training_step(batch, batch_idx)

    trainer = quiet_trainer(
        callbacks=[CurvatureMonitor(every_n_epochs=1, num_steps=3, on_error="raise")],
        logger=CSVLogger(str(tmp_path), name="a", version="b"),
        max_epochs=1,
    )
    trainer.fit(Asking(), data(), data(16, shuffle=False))
    assert {answer[1:] for answer in asked if answer[0]} == {answer[1:] for answer in asked if not answer[0]}
    assert len({answer[0] for answer in asked}) == 2
