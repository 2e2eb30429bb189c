"""What the monitors draw, when, and where it goes."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.drawn import Deep, fit, images
from helpers.networks import data, quiet_trainer
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from lightning_ww import METRICS, History, Measurement, Moment, analyze
from lightning_ww.callbacks import WeightSpectrumMonitor
from lightning_ww.callbacks._weights.pictures import WeightPictures
from lightning_ww.drawing.canvas import picture

pytestmark = pytest.mark.usefixtures("no_bound_on_pictures")


def test_maps_are_drawn_at_first_at_each_measurement_and_spectra_on_occasion(tmp_path: Path) -> None:
    trainer = fit(WeightSpectrumMonitor(), logger=TensorBoardLogger(str(tmp_path)))
    drawn = images(trainer.log_dir)
    every = [0, 5, 11, 17, 23, 35]
    for metric in ("alpha", "alpha_hill", "rand_distance", "sv_min", "distance_from_init", "stable_rank"):
        assert drawn.pop(f"ww.maps/{metric}") == every
    assert drawn == {
        "ww.spectrum/hidden": [0, 35],  # at the start and at the end, evenly by depth
        "ww.spectrum/middle.2": [0, 35],
        "ww.spectrum/middle.5": [0, 35],
        "ww.spectrum/middle.0": [17],  # when it is flagged
    }


def test_layers_that_are_named_are_drawn_again_and_again(tmp_path: Path) -> None:
    monitor = WeightSpectrumMonitor(figure_layers="middle.[12]", figure_every=2, metrics=["alpha"])
    drawn = images(fit(monitor, logger=TensorBoardLogger(str(tmp_path))).log_dir)
    assert drawn.pop("ww.maps/alpha") == [0, 5, 11, 17, 23, 35]
    expected = [0, 11, 23, 35]
    assert drawn.pop("ww.spectrum/middle.1") == drawn.pop("ww.spectrum/middle.2") == expected
    assert drawn == {"ww.spectrum/middle.0": [17]}


def test_a_name_that_matches_nothing_is_an_error_before_training() -> None:
    with pytest.raises(ValueError, match=re.escape("`WeightSpectrumMonitor(figure_layers='mddle')` matches no weight")):
        fit(WeightSpectrumMonitor(figure_layers="mddle"), logger=False)


def test_each_of_many_metrics_has_a_map_in_turn_and_the_last_one_is_up_to_date(tmp_path: Path) -> None:
    monitor = WeightSpectrumMonitor(metrics="all")
    drawn = images(fit(monitor, logger=TensorBoardLogger(str(tmp_path))).log_dir)
    maps = {tag.removeprefix("ww.maps/"): steps for tag, steps in drawn.items() if tag.startswith("ww.maps/")}
    assert set(maps) == set(METRICS)
    assert all(steps[-1] == 35 for steps in maps.values())
    for step in (0, 5, 11, 17, 23):
        assert sum(step in steps for steps in maps.values()) == 8


def test_flagged_layers_are_drawn_by_and_by_also_after_a_resume(tmp_path: Path) -> None:
    class Collapsing(Deep):
        def on_train_epoch_start(self) -> None:
            with torch.no_grad():
                for i in range(6):
                    weight: Any = self.middle[i].weight
                    weight[10:] = 0

    class Save(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / "first.ckpt")

    logger = TensorBoardLogger(str(tmp_path), version="a")
    trainer = quiet_trainer(callbacks=[WeightSpectrumMonitor(), Save()], logger=logger, max_epochs=1)
    trainer.fit(Collapsing(), data(), data(shuffle=False))
    spectra = {tag: steps for tag, steps in images(logger.log_dir).items() if tag.startswith("ww.spectrum")}
    assert sum(5 in steps for steps in spectra.values()) == 6  # three at the end of the epoch, three at that of the run

    logger = TensorBoardLogger(str(tmp_path), version="b")
    trainer = quiet_trainer(callbacks=[WeightSpectrumMonitor()], logger=logger, max_epochs=2)
    trainer.fit(Collapsing(), data(), data(shuffle=False), ckpt_path=str(tmp_path / "first.ckpt"))
    spectra = {tag: steps for tag, steps in images(logger.log_dir).items() if tag.startswith("ww.spectrum")}
    at_once = [tag for tag, steps in spectra.items() if steps[0] == 6]
    assert at_once == [f"ww.spectrum/middle.{i}" for i in (3, 4, 5)]  # what had been left


def due(
    pictures: WeightPictures, history: Any, report: Any, risen: Any = (), flagged: Any = None
) -> dict[str, list[str]]:
    """The keys that are due now and at the end."""
    found = pictures.due(history, report, ["alpha"], risen if flagged is None else flagged, risen)
    return {when: [one.key for one in found if one.when == when] for when in ("now", "end")}


def measured(report: Any, number: int, history: History[Measurement] | None = None) -> History[Measurement]:
    history = History[Measurement]() if history is None else history
    history.append(Measurement.of(Moment(number, number, number, number, number == 0), report, ["alpha"]))
    return history


def test_a_flag_that_rises_is_in_the_map_at_once() -> None:
    report = analyze(nn.ModuleDict({"a": nn.Linear(32, 32)}))
    history = measured(report, 1, measured(report, 0))
    pictures = WeightPictures(None, 10, compare=False, drawn={}, redraws=lambda number, kept: False)
    assert "maps/alpha" in due(pictures, history, report)["end"]
    assert "maps/alpha" in due(pictures, history, report, ["a"])["now"]


def test_figure_layers_have_to_be_measured() -> None:
    with pytest.raises(
        ValueError, match=re.escape("`WeightSpectrumMonitor(figure_layers=('hidden',))`: none of them is")
    ):
        fit(WeightSpectrumMonitor(layers="middle.*", figure_layers="hidden"), logger=False)


def test_layers_without_a_spectrum_take_no_other_ones_place() -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({name: nn.Linear(32, 32) for name in "abcdef"})
    drawn: dict[str, int] = {}
    pictures = WeightPictures(None, 10, compare=False, drawn=drawn)
    with torch.no_grad():
        for name in "abcd":
            weight: Any = model[name].weight
            weight.fill_(float("nan"))
    report = analyze(model)
    history = measured(report, 1)
    now = [key for key in due(pictures, history, report, list("abcdef"))["now"] if key.startswith("spectrum")]
    assert now == ["spectrum/e", "spectrum/f"]
    drawn |= dict.fromkeys(now, 1)
    assert pictures.waiting == ["a", "b", "c", "d"]  # until they have one
    with torch.no_grad():
        weight = model["b"].weight
        torch.nn.init.normal_(weight)
    report = analyze(model)
    now = due(pictures, measured(report, 2, history), report, flagged=list("acd"))["now"]
    assert [key for key in now if key.startswith("spectrum")] == ["spectrum/b"]


def test_a_flagged_layer_whose_picture_failed_waits_for_its_next_turn() -> None:
    report = analyze(nn.ModuleDict({"a": nn.Linear(32, 32)}))
    drawn: dict[str, int] = {}
    pictures = WeightPictures(None, 10, compare=False, drawn=drawn)
    history = measured(report, 1)
    assert "spectrum/a" in due(pictures, history, report, ["a"])["now"]
    assert "spectrum/a" in due(pictures, measured(report, 2, history), report, flagged=["a"])["now"]  # it failed
    drawn["spectrum/a"] = 2
    assert "spectrum/a" not in due(pictures, measured(report, 3, history), report, flagged=["a"])["now"]


def test_the_comparison_of_tails_stands_in_the_monitors_pictures_when_asked() -> None:
    report = analyze(nn.ModuleDict({"a": nn.Linear(64, 64)}))
    for compare in (False, True):
        pictures = WeightPictures(None, 10, compare=compare, drawn={})
        found = {one.key: one for one in pictures.due(measured(report, 0), report, [], (), ())}
        expected = picture(partial(report["a"].plot, compare=compare))
        np.testing.assert_array_equal(found["spectrum/a"].draw(), expected)
