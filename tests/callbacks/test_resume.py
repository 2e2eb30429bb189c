"""A run that is interrupted and taken up again shows what an uninterrupted one shows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.networks import Classifier, data, quiet_trainer
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import LearningRateFinder, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from lightning_ww.callbacks import SpectralEarlyStopping, WeightSpectrumMonitor

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),  # ModelCheckpoint's, and meant
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


def fit(directory: Path, epochs: int, ckpt: Path | None = None, **arguments: Any) -> tuple[Trainer, Any]:
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


def test_a_resumed_run_has_the_history_and_distances_of_an_uninterrupted_one(tmp_path: Path) -> None:
    _, whole = fit(tmp_path / "whole", 4)
    fit(tmp_path / "first", 2)
    _, resumed = fit(tmp_path / "second", 4, last(tmp_path / "first"))
    assert [past.step for past in resumed.history] == [past.step for past in whole.history] == [0, 6, 12, 18, 24]
    assert [past.epoch for past in resumed.history] == [past.epoch for past in whole.history] == [0, 0, 1, 2, 3]
    for a, b in zip(resumed.history, whole.history, strict=True):
        torch.testing.assert_close(a.values, b.values, rtol=0, atol=0, equal_nan=True)


def test_initial_weights_are_written_once_with_the_first_checkpoint(tmp_path: Path) -> None:
    fit(tmp_path, 3)
    files = list(tmp_path.glob("initial_weights-*"))
    assert len(files) == 1
    seed_everything(0, verbose=False)
    torch.testing.assert_close(torch.load(files[0])["hidden"][0], Classifier().hidden.weight.detach())


def test_without_a_checkpoint_nothing_is_written(tmp_path: Path) -> None:
    trainer = quiet_trainer(callbacks=[WeightSpectrumMonitor()], logger=CSVLogger(str(tmp_path), name="", version=""))
    trainer.fit(Classifier(), data(), data(32, shuffle=False))
    assert not list(tmp_path.rglob("initial_weights*"))


def test_initial_weights_are_found_beside_a_checkpoint_that_was_moved(tmp_path: Path) -> None:
    fit(tmp_path / "first", 2)
    (tmp_path / "moved").mkdir()
    shutil.copy(last(tmp_path / "first"), tmp_path / "moved" / "last.ckpt")
    shutil.move(next((tmp_path / "first").glob("initial_weights-*")), tmp_path / "moved")
    _, resumed = fit(tmp_path / "second", 3, tmp_path / "moved" / "last.ckpt")
    assert resumed.history[-1].value("hidden", "distance_from_init") is not None
    assert list((tmp_path / "second").glob("initial_weights-*"))  # and taken along


@pytest.mark.parametrize("damage", ["gone", "other", "garbage"])
def test_without_its_initial_weights_a_resumed_run_omits_the_distance_with_one_warning(
    damage: str, tmp_path: Path
) -> None:
    fit(tmp_path / "first", 2)
    file = next((tmp_path / "first").glob("initial_weights-*"))
    if damage == "gone":
        file.unlink()
    elif damage == "other":
        torch.save({name: value + 1 for name, value in torch.load(file).items()}, file)
    else:
        file.write_bytes(b"not a tensor")
    message = "`WeightSpectrumMonitor` resumes without the initial weights, and omits `distance_from_init`. Expected "
    with pytest.warns(UserWarning, match=message) as caught:
        trainer, resumed = fit(tmp_path / "second", 4, last(tmp_path / "first"))
    assert len([w for w in caught if "initial weights" in str(w.message)]) == 1
    assert any(str(file) in str(w.message) for w in caught)
    assert resumed.history[-1].value("hidden", "distance_from_init") is None
    assert "distance_from_init_relative" not in resumed.history[-1].summary
    assert "ww/distance_from_init_relative" not in trainer.callback_metrics  # nor the last value of before
    assert resumed.history[-1].value("hidden", "alpha") is not None


def test_a_checkpoint_is_read_with_weights_only(tmp_path: Path) -> None:
    fit(tmp_path, 2)
    state = torch.load(last(tmp_path), weights_only=True)["callbacks"]
    key = next(key for key in state if key.startswith("WeightSpectrumMonitor"))
    assert [past["moment"]["step"] for past in state[key]["history"]["measurements"]] == [0, 6, 12]


def test_without_the_metric_no_initial_weights_are_kept(tmp_path: Path) -> None:
    trainer, _ = fit(tmp_path, 2, metrics=["alpha"])
    assert not list(tmp_path.rglob("initial_weights*"))
    assert "ww/distance_from_init_relative" not in trainer.callback_metrics


def test_resuming_without_the_callback_or_with_it_added_later_works(tmp_path: Path) -> None:
    trainer = quiet_trainer(
        callbacks=[ModelCheckpoint(tmp_path / "checkpoints", save_last=True)], enable_checkpointing=True
    )
    trainer.fit(Classifier(), data(), data(32, shuffle=False))
    with pytest.warns(
        UserWarning, match="finds nothing of its own in the checkpoint: `distance_from_init` counts from"
    ):
        _, added = fit(tmp_path / "second", 3, last(tmp_path))
    assert [past.step for past in added.history] == [12, 18]  # its baseline is where it was added
    assert added.history[0].value("hidden", "distance_from_init") == 0


def test_two_monitors_keep_their_own_state(tmp_path: Path) -> None:
    def both() -> list[WeightSpectrumMonitor]:
        return [WeightSpectrumMonitor(layers="hidden"), WeightSpectrumMonitor(log_key_prefix="again/")]

    def go(epochs: int, ckpt: str | None) -> list[WeightSpectrumMonitor]:
        monitors = both()
        trainer = quiet_trainer(
            max_epochs=epochs,
            callbacks=[*monitors, ModelCheckpoint(tmp_path, save_last=True)],
            enable_checkpointing=True,
            default_root_dir=str(tmp_path),
        )
        trainer.fit(Classifier(), data(), data(32, shuffle=False), ckpt_path=ckpt)
        return monitors

    go(2, None)
    first, second = go(3, str(tmp_path / "last.ckpt"))
    assert first.history[-1].layers == ("hidden",)
    assert second.history[-1].layers == ("hidden", "head")
    assert len(first.history) == len(second.history) == 4


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
    assert [past["moment"]["step"] for past in monitor.state_dict()["history"]["measurements"]] == steps
    assert len(steps) == 5
    assert list(stopping.state_dict()["counted"].values()) == [4]


def test_measurements_are_kept_where_the_step_counter_stands_still() -> None:
    class Bare(Classifier):
        """Steps its optimizer behind Lightning's back."""

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            optimizer: Any = self.optimizers(use_pl_optimizer=False)
            optimizer.zero_grad()
            self.manual_backward(torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))
            optimizer.step()

    class Lose(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 2:
                pl_module.hidden.weight.data.fill_(float("nan"))  # type: ignore[union-attr,operator]

    monitor = WeightSpectrumMonitor(on_error="raise")
    trainer = quiet_trainer(callbacks=[monitor, SpectralEarlyStopping("nonfinite"), Lose()], max_epochs=5)
    with pytest.warns(UserWarning, match="`nonfinite` at layer"):
        trainer.fit(Bare(), data(), data(32, shuffle=False))
    assert [past.number for past in monitor.history] == [0, 1, 2, 3]
    assert trainer.current_epoch == 3


def test_a_second_fit_of_a_run_that_lost_its_initial_weights_does_not_invent_them(tmp_path: Path) -> None:
    fit(tmp_path / "first", 2)
    next((tmp_path / "first").glob("initial_weights-*")).unlink()
    with pytest.warns(UserWarning, match="resumes without the initial weights"):
        trainer, monitor = fit(tmp_path / "second", 3, last(tmp_path / "first"))
    trainer.fit_loop.max_epochs = 4
    trainer.fit(trainer.lightning_module, data(shuffle=False), data(32, shuffle=False))
    assert monitor.history[-1].value("hidden", "distance_from_init") is None


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


def test_hysteresis_survives_a_resume(tmp_path: Path) -> None:
    class Half(Callback):
        """Collapses sixty per cent of a layer's rank in the first epoch, forty-five in the later ones."""

        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            weight: Any = pl_module.hidden.weight  # type: ignore[union-attr]
            left, values, right = torch.linalg.svd(torch.randn(32, 24), full_matrices=False)
            values[int(24 * (0.4 if trainer.current_epoch < 1 else 0.55)) :] = 0
            with torch.no_grad():
                weight.copy_(left @ torch.diag(values) @ right)

    def go(epochs: int, ckpt: str | None) -> WeightSpectrumMonitor:
        monitor = WeightSpectrumMonitor(on_error="raise")
        checkpoint = ModelCheckpoint(tmp_path, save_last=True)
        trainer = quiet_trainer(
            max_epochs=epochs,
            callbacks=[monitor, Half(), checkpoint],
            enable_checkpointing=True,
            default_root_dir=str(tmp_path),
        )
        trainer.fit(Classifier(lr=0.0), data(), data(32, shuffle=False), ckpt_path=ckpt)
        return monitor

    with pytest.warns(UserWarning, match="`rank_collapse` at layer `hidden`"):
        go(1, None)
    resumed = go(2, str(tmp_path / "last.ckpt"))  # and it does not warn again
    assert "rank_collapse" in resumed.history[-1].flags  # between the thresholds: it holds


def test_a_folder_that_cannot_be_written_to_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.warns(UserWarning, match="could not write the initial weights to") as caught:
        fit(tmp_path, 3)
    assert len([w for w in caught if "could not write" in str(w.message)]) == 1


def test_a_checkpoint_of_another_version_warns_once_and_begins_anew(tmp_path: Path) -> None:
    fit(tmp_path / "first", 2)
    file = last(tmp_path / "first")
    state = torch.load(file, weights_only=True)
    key = next(key for key in state["callbacks"] if key.startswith("WeightSpectrumMonitor"))
    history = [{"number": 0, "step": 0, "epoch": 0, "is_baseline": True, "summary": {"ww/alpha": 2.0}, "layers": []}]
    state["callbacks"][key] = {
        "history": history,
        "held": {"ww/alpha": 2.0},
        "warned": [],
        "initial": None,
        "logged": {},
    }
    torch.save(state, file)
    message = "`WeightSpectrumMonitor` finds in the checkpoint what another version of it has written, and begins anew"
    with pytest.warns(UserWarning, match=message) as caught:
        _, resumed = fit(tmp_path / "second", 4, file)
    assert len([w for w in caught if "WeightSpectrumMonitor" in str(w.message)]) == 1
    assert [past.step for past in resumed.history] == [12, 18, 24]
    assert resumed.history[0].value("hidden", "distance_from_init") == 0
