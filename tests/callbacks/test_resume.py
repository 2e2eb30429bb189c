"""A run that is interrupted and taken up again shows what an uninterrupted one shows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fits import fit_with_checkpoints as fit
from helpers.fits import last
from helpers.measured import altered, measurements_in
from helpers.networks import Classifier, data, quiet_trainer
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import BatchSizeFinder, LearningRateFinder, ModelCheckpoint
from torch import nn

from lightning_ww.callbacks import CurvatureMonitor, SpectralEarlyStopping, WeightSpectrumMonitor

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),  # ModelCheckpoint's, and meant
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


def test_a_resumed_run_has_the_history_and_distances_of_an_uninterrupted_one(tmp_path: Path) -> None:
    _, whole = fit(tmp_path / "whole", 4)
    fit(tmp_path / "first", 2)
    _, resumed = fit(tmp_path / "second", 4, last(tmp_path / "first"))
    assert [past.step for past in resumed.history] == [past.step for past in whole.history] == [0, 6, 12, 18, 24]
    assert [past.epoch for past in resumed.history] == [past.epoch for past in whole.history] == [0, 0, 1, 2, 3]
    for a, b in zip(resumed.history, whole.history, strict=True):
        torch.testing.assert_close(a.values, b.values, rtol=0, atol=0, equal_nan=True)


class Wide(Classifier):
    """Has a layer so large that its shuffle is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(150, 140)

    def on_train_epoch_start(self) -> None:
        with torch.no_grad():
            self.wide.weight.add_(1e-3 * self.wide.weight.flip(0))


def test_a_resumed_run_uses_the_shuffles_that_the_uninterrupted_one_has_kept(tmp_path: Path) -> None:
    def run(folder: str, epochs: int, checkpoint: Path | None = None) -> WeightSpectrumMonitor:
        monitor = WeightSpectrumMonitor(on_error="raise")
        keeping = ModelCheckpoint(tmp_path / folder, save_last=True)
        trainer = quiet_trainer(callbacks=[monitor, keeping], max_epochs=epochs, enable_checkpointing=True)
        torch.manual_seed(0)
        trainer.fit(Wide(), data(shuffle=False), data(32, shuffle=False), ckpt_path=checkpoint)
        return monitor

    whole = run("whole", 4)
    run("first", 2)
    resumed = run("second", 4, tmp_path / "first" / "last.ckpt")
    assert whole.report is not None
    assert whole.report["wide"].shuffle == "kept"
    for a, b in zip(resumed.history, whole.history, strict=True):
        torch.testing.assert_close(a.values, b.values, rtol=0, atol=0, equal_nan=True)


def test_a_checkpoint_is_read_with_weights_only(tmp_path: Path) -> None:
    fit(tmp_path, 2)
    state = torch.load(last(tmp_path), weights_only=True)["callbacks"]
    key = next(key for key in state if key.startswith("WeightSpectrumMonitor"))
    assert [past["moment"]["step"] for past in measurements_in(state[key])] == [0, 6, 12]


def test_resuming_without_the_callback_or_with_it_added_later_works(tmp_path: Path) -> None:
    trainer = quiet_trainer(
        callbacks=[ModelCheckpoint(tmp_path / "checkpoints", save_last=True)], enable_checkpointing=True
    )
    trainer.fit(Classifier(), data(), data(32, shuffle=False))
    with pytest.warns(
        UserWarning, match="has no state in the checkpoint: it measures `distance_from_init` from the current"
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
    message = (
        "`WeightSpectrumMonitor` cannot use its state in the checkpoint, which another version wrote, "
        "and starts a new history, and measures any `distance_from_init` from the current weights."
    )
    with pytest.warns(UserWarning, match=message) as caught:
        _, resumed = fit(tmp_path / "second", 4, file)
    assert len([w for w in caught if "WeightSpectrumMonitor" in str(w.message)]) == 1
    assert [past.step for past in resumed.history] == [12, 18, 24]
    assert resumed.history[0].value("hidden", "distance_from_init") == 0


def without(*names: str) -> Callable[[dict[str, Any]], object]:
    return lambda state: [state.pop(name) for name in names]


ALTERED: dict[str, tuple[Callable[[dict[str, Any]], object], str, bool]] = {
    # what another version may have done to the state, what is said, and whether the history goes on
    "no held": (without("held"), "finds no `held`", True),
    "no events": (without("events"), "finds no `events`", True),
    "no floors": (lambda state: state["memory"].pop("floors"), "finds no `floors`", True),
    "other events": (lambda state: state.update(events=5), "cannot read `events`", True),
    "held is a list": (lambda state: state.update(held=[1]), "cannot read `held`", True),
    "bins are words": (lambda state: state["memory"]["logged"].update(bins={"a": "no"}), "cannot read `logged`", True),
    "something more": (lambda state: state.update(more=1), "ignores `more`", True),
    "more in a measurement": (
        lambda state: altered(state, 0, lambda one: one.update(mood="good")),
        "ignores `mood` of the measurements",
        True,
    ),
    "no memory": (without("memory"), "resumes without the initial weights", True),
    "no initial": (lambda state: state["memory"].pop("initial"), "resumes without the initial weights", True),
    "initial is a word": (lambda state: state["memory"].update(initial="x"), "resumes without the initial", True),
    "no form": (without("form"), "which another version wrote", False),
    "no history": (without("history"), "whose history it cannot read", False),
    "no moment": (lambda s: altered(s, 1, lambda one: one.pop("moment")), "whose history it cannot read", False),
    "no first one": (lambda state: state["history"].update(baseline=None), "whose history it cannot read", False),
}


@pytest.mark.parametrize("kind", ALTERED)
def test_an_altered_state_is_said_and_the_rest_goes_on(kind: str, tmp_path: Path) -> None:
    alter, message, goes_on = ALTERED[kind]
    fit(tmp_path / "first", 2)
    file = last(tmp_path / "first")
    state = torch.load(file, weights_only=True)
    alter(next(own for key, own in state["callbacks"].items() if key.startswith("WeightSpectrumMonitor")))
    torch.save(state, file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, resumed = fit(tmp_path / "second", 3, file)
    assert len([w for w in caught if message in str(w.message)]) == 1
    assert [past.step for past in resumed.history] == ([0, 6, 12, 18] if goes_on else [12, 18])
    distance = resumed.history[-1].value("hidden", "distance_from_init")
    if "initial" in message:
        assert distance is None  # never one from other weights


@pytest.mark.parametrize(
    "finder", [lambda: LearningRateFinder(num_training_steps=8), lambda: BatchSizeFinder(max_trials=1, init_val=16)]
)
def test_a_finder_before_the_run_is_no_resume(
    finder: Callable[[], Callback], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Found(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.batch_size = 16

        def train_dataloader(self) -> Any:
            return data(batch_size=self.batch_size)

        def val_dataloader(self) -> Any:
            return data(32, shuffle=False)

    ours = [WeightSpectrumMonitor(), CurvatureMonitor(every_n_epochs=1, num_steps=3), SpectralEarlyStopping()]
    trainer = quiet_trainer(callbacks=[*ours, finder()], max_epochs=1, default_root_dir=tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(Found())
    said = [str(w.message) for w in caught] + [record.getMessage() for record in caplog.records]
    assert not [message for message in said if "`WeightSpectrumMonitor`" in message and "checkpoint" in message]
    assert not [message for message in said if "cannot" in message and "Monitor`" in message]
    for monitor in ours[:2]:
        assert monitor.history[0].step == 0  # type: ignore[attr-defined]
        assert len(monitor.history) == 2  # type: ignore[attr-defined]
