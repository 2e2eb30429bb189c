"""The weights of the first step, across checkpoints and resumed runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fits import fit_with_checkpoints as fit
from helpers.fits import last
from helpers.networks import Classifier, data, quiet_trainer
from pytorch_lightning import seed_everything
from pytorch_lightning.loggers import CSVLogger

from lightning_ww.callbacks import WeightSpectrumMonitor

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),  # ModelCheckpoint's, and meant
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


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


def test_without_the_metric_no_initial_weights_are_kept(tmp_path: Path) -> None:
    trainer, _ = fit(tmp_path, 2, metrics=["alpha"])
    assert not list(tmp_path.rglob("initial_weights*"))
    assert "ww/distance_from_init_relative" not in trainer.callback_metrics


def test_a_second_fit_of_a_run_that_lost_its_initial_weights_does_not_invent_them(tmp_path: Path) -> None:
    fit(tmp_path / "first", 2)
    next((tmp_path / "first").glob("initial_weights-*")).unlink()
    with pytest.warns(UserWarning, match="resumes without the initial weights"):
        trainer, monitor = fit(tmp_path / "second", 3, last(tmp_path / "first"))
    trainer.fit_loop.max_epochs = 4
    trainer.fit(trainer.lightning_module, data(shuffle=False), data(32, shuffle=False))
    assert monitor.history[-1].value("hidden", "distance_from_init") is None


def test_a_folder_that_cannot_be_written_to_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.warns(UserWarning, match="could not write the initial weights to") as caught:
        fit(tmp_path, 3)
    assert len([w for w in caught if "could not write" in str(w.message)]) == 1
