"""Updates from one measurement to the next, against copies of the weights that the test keeps itself."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.beside import at_once
from helpers.fits import fit, fit_with_checkpoints, last, weight_monitor
from helpers.networks import Classifier
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_ww.callbacks._weights.previous_weights import PreviousWeights
from lightning_ww.weights.layers import find_layers

UPDATES = ("update_relative", "update_stable_rank")


class Copies(Callback):
    """The weights of the linear layers before the first step and after each epoch."""

    def __init__(self) -> None:
        self.kept: list[dict[str, torch.Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(pl_module)

    def _keep(self, module: LightningModule) -> None:
        self.kept.append({layer.name: layer.read()[0].clone().double() for layer in find_layers(module)[0]})


@pytest.mark.parametrize("execution", ["sync", "background"])
def test_they_are_those_since_the_last_measurement(execution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch)
    copies, monitor = Copies(), weight_monitor(metrics=UPDATES, execution=execution)
    fit(monitor, copies, max_epochs=3)
    assert len(monitor.history) == 4
    first = monitor.history[0]
    assert all(first.value(layer, metric) is None for layer in first.layers for metric in UPDATES)
    for i in (1, 2, 3):
        measurement = monitor.history[i]
        for name in measurement.layers:
            now, before = copies.kept[i][name], copies.kept[i - 1][name]
            singular = torch.linalg.svdvals(now - before)
            relative, rank = (measurement.value(name, metric) for metric in UPDATES)
            assert relative == pytest.approx(float((now - before).norm() / now.norm()), rel=1e-5)
            assert rank == pytest.approx(float(singular.square().sum() / singular.max() ** 2), rel=1e-5)


def test_a_layer_that_has_not_moved_has_none_and_says_so() -> None:
    model: Any = Classifier()
    first = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
    first.requires_grad_(False)
    name = next(name for name, module in model.named_modules() if module is first)
    monitor = weight_monitor(metrics=UPDATES)
    fit(monitor, model=model, max_epochs=3)
    assert monitor.report is not None
    for layer in monitor.report.layers:
        assert (layer.update_relative is None) == (layer.name == name)
    assert monitor.report[name].reasons["update_relative"] == "the weight did not move"


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_resumed_fit_has_none_at_first(tmp_path: Path) -> None:
    fit_with_checkpoints(tmp_path / "first", 1, metrics=UPDATES)
    _, monitor = fit_with_checkpoints(tmp_path / "second", 3, last(tmp_path / "first"), metrics=UPDATES)
    known = [past.value(past.layers[0], "update_relative") is not None for past in monitor.history]
    assert known == [False, True, True, True]  # the weights at the start of the resumed fit are those of the last epoch


def test_unless_they_are_asked_for_nothing_is_kept_and_the_reason_says_how() -> None:
    monitor = weight_monitor()
    fit(monitor, max_epochs=1)
    assert not monitor._memory.previous._taken
    assert monitor.report is not None
    assert monitor.report.layers[0].reasons["update_relative"] == "not asked for (name it in `metrics=`)"


def test_weights_are_not_pickled_and_only_kept_after_success() -> None:
    model = torch.nn.Linear(16, 16)
    previous = PreviousWeights()
    assert previous.then_take(find_layers(model)[0], None) is None
    previous.is_wanted = True
    layers = find_layers(model)[0]
    assert previous.then_take(layers, None) == {}
    assert previous.then_take(layers, None) == {}  # the measurement has failed
    previous.keep()
    old = copy.deepcopy(model.weight.detach())
    with torch.no_grad():
        model.weight.zero_()
    kept = previous.then_take(layers, None)
    assert kept is not None
    assert torch.equal(kept["weight"][0], old)
    assert pickle.loads(pickle.dumps(previous)).then_take(layers, None) == {}
