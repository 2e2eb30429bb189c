"""The numbers that are followed between two measurements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from helpers.networks import data, quiet_trainer
from helpers.tiny import Tiny
from pytorch_lightning import LightningModule, Trainer

from lightning_ww.callbacks import CurvatureMonitor
from lightning_ww.callbacks._monitor.run import Between


class Counting(CurvatureMonitor):
    """Follows the number of the step, and fails at one."""

    failing = -1

    def _prepare(self, *arguments: Any) -> None:
        super()._prepare(*arguments)
        self.steps: list[int] = []

        def follow(trainer: Trainer, pl_module: LightningModule) -> Mapping[str, float]:
            self.steps.append(trainer.global_step)
            if trainer.global_step == self.failing:
                raise RuntimeError("not now")
            return {"steps_made": float(trainer.global_step)}

        self._run.between = Between("count the steps", 1, follow)


class Failing(Counting):
    failing = 2


def fit(monitor: Counting) -> Trainer:
    trainer = quiet_trainer(callbacks=[monitor], max_epochs=1, limit_train_batches=4)
    trainer.fit(Tiny(), data(), data(16, shuffle=False))
    return trainer


def test_numbers_are_followed_where_nothing_is_measured_and_stay_in_the_metrics() -> None:
    monitor = Counting(every_n_epochs=None, every_n_train_steps=2, num_steps=5, on_error="raise")
    trainer = fit(monitor)
    assert monitor.steps == [1, 3]
    assert [past.step for past in monitor.history] == [0, 2, 4]
    assert float(trainer.callback_metrics["curvature/steps_made"]) == 3


def test_an_error_is_one_warning_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    monitor = Failing(every_n_epochs=1, num_steps=5)
    trainer = fit(monitor)
    assert caplog.text.count("could not count the steps at step 2 (RuntimeError: not now)") == 1
    assert trainer.global_step == 4
    assert monitor.steps == [1, 2, 3]
