"""Restored state is taken up when a fit begins, and not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.measured import measurements_in
from helpers.networks import Classifier, data, quiet_trainer
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateFinder, ModelCheckpoint

from lightning_ww.callbacks import SpectralEarlyStopping, WeightSpectrumMonitor

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),  # ModelCheckpoint's, and meant
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


def test_testing_a_checkpoint_does_not_touch_what_the_run_left(tmp_path: Path) -> None:
    class Tested(Classifier):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.validation_step(batch, batch_idx)

    monitor, stopping = WeightSpectrumMonitor(on_error="raise"), SpectralEarlyStopping("rank_collapse")
    trainer = quiet_trainer(
        max_epochs=3,
        callbacks=[monitor, stopping, ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)],
        enable_checkpointing=True,
        default_root_dir=str(tmp_path),
    )
    model = Tested()
    trainer.fit(model, data(), data(32, shuffle=False))
    report = monitor.report
    trainer.test(Tested(), data(32, shuffle=False), ckpt_path=str(tmp_path / "epoch=0.ckpt"), verbose=False)
    assert monitor.report is report
    assert len(monitor.history) == 4
    trainer.fit_loop.max_epochs = 4
    trainer.fit(model, data(), data(32, shuffle=False))
    assert [past.step for past in monitor.history] == [0, 6, 12, 18, 24]
    assert list(stopping.state_dict()["counted"].values()) == [4]


@pytest.mark.parametrize("finder_first", [True, False])
def test_a_learning_rate_finder_leaves_the_distance_from_init_alone(finder_first: bool, tmp_path: Path) -> None:
    monitor, finder = WeightSpectrumMonitor(on_error="raise"), LearningRateFinder(num_training_steps=5)
    callbacks = [finder, monitor] if finder_first else [monitor, finder]
    trainer = quiet_trainer(callbacks=callbacks, default_root_dir=str(tmp_path))
    trainer.fit(Classifier(), data(), data(32, shuffle=False))
    assert [past.step for past in monitor.history] == [0, 6, 12]
    assert monitor.history[0].value("hidden", "distance_from_init") == 0
    assert monitor.history[-1].value("hidden", "distance_from_init") is not None


def test_a_learning_rate_finder_in_the_middle_of_a_fit_freezes_nothing(tmp_path: Path) -> None:
    class Milestones(LearningRateFinder):
        def on_fit_start(self, *_: Any) -> None:
            return

        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 1:
                self.lr_find(trainer, pl_module)

    monitor, stopping = WeightSpectrumMonitor(on_error="raise"), SpectralEarlyStopping("rank_collapse")
    callbacks = [monitor, stopping, Milestones(num_training_steps=3)]
    trainer = quiet_trainer(callbacks=callbacks, default_root_dir=str(tmp_path), max_epochs=4)
    trainer.fit(Classifier(), data(), data(32, shuffle=False))
    steps = [past.step for past in monitor.history]
    assert [past["moment"]["step"] for past in measurements_in(monitor.state_dict())] == steps
    assert len(steps) == 5
    assert list(stopping.state_dict()["counted"].values()) == [4]


def test_another_trainer_on_the_same_model_is_another_run() -> None:
    monitor, model = WeightSpectrumMonitor(on_error="raise"), Classifier()
    for _ in range(2):
        quiet_trainer(callbacks=[monitor], max_epochs=2).fit(model, data(), data(32, shuffle=False))
        assert [past.step for past in monitor.history] == [0, 6, 12]
        assert monitor.history[0].value("hidden", "distance_from_init") == 0


def test_a_callback_used_for_another_model_begins_anew() -> None:
    monitor = WeightSpectrumMonitor(on_error="raise")
    for _ in range(2):
        model: LightningModule = Classifier()
        quiet_trainer(callbacks=[monitor]).fit(model, data(), data(32, shuffle=False))
        assert [past.step for past in monitor.history] == [0, 6, 12]
        assert monitor.history[0].value("hidden", "distance_from_init") == 0


def test_fitting_the_same_model_again_goes_on() -> None:
    monitor, model = WeightSpectrumMonitor(on_error="raise"), Classifier()
    trainer = quiet_trainer(callbacks=[monitor], max_epochs=1)
    trainer.fit(model, data(), data(32, shuffle=False))
    moved = monitor.history[-1].value("hidden", "distance_from_init")
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, data(), data(32, shuffle=False))
    assert [past.step for past in monitor.history] == [0, 6, 12]
    assert monitor.history[1].value("hidden", "distance_from_init") == moved  # from the first weights
