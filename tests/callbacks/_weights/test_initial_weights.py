"""The weights of the first step, across checkpoints and resumed runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.fits import fit_with_checkpoints as fit
from helpers.fits import last
from helpers.networks import Classifier, data, quiet_trainer
from pytorch_lightning import seed_everything
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from lightning_ww.callbacks import WeightSpectrumMonitor
from lightning_ww.callbacks._weights.initial_weights import InitialWeights, InitialWeightsKeeper
from lightning_ww.weights.layers import find_layers
from lightning_ww.weights.slices import SkippedLayer, Weight

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


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (Path.unlink, "Expected them at"),
    "other": (lambda file: torch.save({k: v + 1 for k, v in torch.load(file).items()}, file), "has others"),
    "half": (lambda file: file.write_bytes(file.read_bytes()[:500]), "cannot be read"),
    "empty": (lambda file: file.write_bytes(b""), "cannot be read"),
    "garbage": (lambda file: file.write_bytes(b"not a tensor"), "cannot be read"),
    "text": (lambda file: file.write_text(str(__doc__) * 40), "cannot be read"),
    "numbers": (lambda file: torch.save({"hidden": 1}, file), "it holds something else"),
    "a list": (lambda file: torch.save([torch.ones(2)], file), "it holds something else"),
    "a module": (lambda file: torch.save(torch.nn.Linear(2, 2), file), "cannot be read"),
    "scalars": (lambda file: torch.save({"hidden": torch.tensor(1.0)}, file), "cannot be read"),
    "sparse tensors": (lambda file: torch.save({"hidden": torch.eye(3).to_sparse()}, file), "cannot be read"),
    "parameters": (lambda file: torch.save({"hidden": torch.nn.Parameter(torch.ones(2))}, file), "has others"),
    "other names": (lambda file: torch.save({"x": torch.ones(2)}, file), "has others"),
    "a folder": (folder, "it is no file"),
    "a pipe": (pipe, "it is no file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_its_initial_weights_a_resumed_run_omits_the_distance_with_one_warning(
    damage: str, tmp_path: Path
) -> None:
    fit(tmp_path / "first", 2)
    file = next((tmp_path / "first").glob("initial_weights-*"))
    harm, reason = DAMAGES[damage]
    harm(file)
    message = "`WeightSpectrumMonitor` resumes without the initial weights, and omits `distance_from_init`. .*" + reason
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
    assert not list(tmp_path.rglob("*.partial"))


def snapshots(names: str, value: float, folder: Path) -> InitialWeights:
    return InitialWeights({name: torch.full((1, 2, 2), value) for name in names}, str(folder))


def test_weights_that_vanish_are_written_again(tmp_path: Path) -> None:
    weights = snapshots("a", 1.0, tmp_path)
    assert weights.save() is None
    weights.path.unlink()
    assert weights.save() is None
    assert weights.path.is_file()


def test_a_growing_model_has_one_file_in_which_every_checkpoint_finds_its_own(tmp_path: Path) -> None:
    first = nn.Linear(2, 3)
    model, weights, states = nn.Sequential(first), InitialWeights({}, str(tmp_path)), []
    for width in (3, 4, 5):
        weights.add(find_layers(model)[0])
        states.append(weights.state_dict())
        assert weights.save() is None
        model.append(nn.Linear(width, width + 1))
    assert len(list(tmp_path.iterdir())) == 1
    for count, state in enumerate(states, start=1):
        found = InitialWeights.restore(state, None, str(tmp_path))
        assert list(found.slices) == [str(i) for i in range(count)]
        torch.testing.assert_close(found.slices["0"][0], first.weight.detach())
    # a run that goes on from the first checkpoint, and grows otherwise, leaves the file alone
    branch = InitialWeights.restore(states[0], None, str(tmp_path))
    branch.add(find_layers(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)))[0])
    assert branch.state_dict()["path"] != states[0]["path"]
    assert branch.save() is None
    assert len(list(tmp_path.iterdir())) == 2
    assert len(InitialWeights.restore(states[2], None, str(tmp_path)).slices) == 3


def test_of_layers_that_are_spread_over_processes_only_the_own_are_kept_and_no_file_is_written(tmp_path: Path) -> None:
    layers: Any = [SimpleNamespace(name=name, is_sharded=True) for name in "ab"]
    own = Weight("b", "Linear", False, False, False, torch.ones(1, 9, 9))
    keeper = InitialWeightsKeeper()
    keeper.begin(None, None, str(tmp_path))
    slices = keeper.slices(layers, [SkippedLayer("c", "one_axis", ""), own])
    assert slices is not None
    assert list(slices) == ["b"]
    own.slices.zero_()
    kept = keeper.slices(layers, [own])
    assert kept is not None
    assert kept["b"].sum() == 81
    assert keeper.state_dict() is None
    assert "layers that are spread over processes" in str(keeper.save())
    assert not list(tmp_path.iterdir())
