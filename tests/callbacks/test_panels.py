"""What the monitors draw, when, and where it goes."""

from __future__ import annotations

import importlib
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.networks import Classifier, data, quiet_trainer
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from lightning_ww import METRICS, analyze
from lightning_ww.callbacks import CurvatureMonitor, WeightSpectrumMonitor
from lightning_ww.callbacks._curvature import pictures as _curvature_panels
from lightning_ww.callbacks._monitor.events import Events
from lightning_ww.callbacks._monitor.schedule import is_redrawn
from lightning_ww.callbacks._weights import pictures as _weight_panels
from lightning_ww.drawing.heat_map import FRAME
from lightning_ww.triggers.diagnosis import Diagnosis


class Deep(Classifier):
    """Eight layers; the second loses half of its rank in epoch 2, and has it back in epoch 4."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(24, 32)
        self.middle = nn.Sequential(*(nn.Linear(32, 32) for _ in range(6)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(torch.relu(self.middle(torch.relu(self.hidden(x))))))

    def on_train_epoch_start(self) -> None:
        weight: Any = self.middle[0].weight
        with torch.no_grad():
            if self.current_epoch == 2:
                weight[10:] = 0
            elif self.current_epoch in (3, 4):
                torch.nn.init.normal_(weight[10:], std=0.0 if self.current_epoch == 3 else 0.1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.head.parameters(), lr=0.01)


def fit(*callbacks: Any, logger: Any, epochs: int = 6, model: LightningModule | None = None) -> Any:
    torch.manual_seed(0)
    trainer = quiet_trainer(callbacks=list(callbacks), logger=logger, max_epochs=epochs)
    trainer.fit(model or Deep(), data(), data(shuffle=False))
    return trainer


def images(folder: str | None) -> dict[str, list[int]]:
    """Steps, by tag."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}


def test_maps_are_drawn_at_each_measurement_and_spectra_on_occasion(tmp_path: Path) -> None:
    trainer = fit(WeightSpectrumMonitor(), logger=TensorBoardLogger(str(tmp_path)))
    drawn = images(trainer.log_dir)
    every = [0, 5, 11, 17, 23, 29, 35]
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
    assert drawn.pop("ww.maps/alpha") == [0, 5, 11, 17, 23, 29, 35]
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
    for step in (0, 5, 11, 17, 23, 29):
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


def test_a_run_without_shuffles_has_no_empty_band(tmp_path: Path) -> None:
    trainer = fit(WeightSpectrumMonitor(shuffle="off"), logger=TensorBoardLogger(str(tmp_path)), epochs=1)
    (ours,) = layouts(f"{trainer.log_dir}/lightning-ww")
    assert [chart.title for chart in ours.category[0].chart][2:] == ["stable_rank", "alpha"]


def test_fast_dev_run_draws_one_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "heat_map": _weight_panels,
        "layer_figure": _weight_panels,
        "spectrum_figure": _curvature_panels,
        "evolution": _curvature_panels,
    }
    seen = {name: spied(monkeypatch, module, name) for name, module in modules.items()}
    callbacks = [WeightSpectrumMonitor(on_error="raise"), CurvatureMonitor(num_steps=3, on_error="raise")]
    quiet_trainer(callbacks=callbacks, logger=True, fast_dev_run=2).fit(Deep(), data(), data(shuffle=False))
    assert {name: len(calls) for name, calls in seen.items()} == dict.fromkeys(modules, 2)


def test_two_loggers_get_the_same_pictures_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spied(monkeypatch, _weight_panels, "heat_map")
    loggers = [TensorBoardLogger(str(tmp_path), name=name) for name in ("a", "b")]
    fit(WeightSpectrumMonitor(metrics=["alpha"]), logger=loggers, epochs=1)
    first, second = (images(logger.log_dir) for logger in loggers)
    assert first == second
    assert first["ww.maps/alpha"] == [0, 5]
    assert len(seen) == 2
    assert all(len(layouts(f"{logger.log_dir}/lightning-ww")) == 1 for logger in loggers)


def test_a_run_that_is_logged_elsewhere_has_its_pictures_and_its_overview_there() -> None:
    fsspec: Any = importlib.import_module("fsspec")

    trainer = fit(WeightSpectrumMonitor(metrics=["alpha"]), logger=TensorBoardLogger("memory://runs"), epochs=1)
    files = fsspec.filesystem("memory").find("/runs")
    assert [Path(file).parent.name for file in files if "events" in file] == ["version_0", "lightning-ww"]
    assert trainer.log_dir == "memory://runs/lightning_logs/version_0"


def test_without_panels_there_are_none(tmp_path: Path) -> None:
    callbacks = WeightSpectrumMonitor(panels=False), CurvatureMonitor(panels=False, num_steps=3)
    trainer = fit(*callbacks, logger=TensorBoardLogger(str(tmp_path)), epochs=1)
    assert images(trainer.log_dir) == {}
    assert not list(Path(str(trainer.log_dir)).glob("lightning-ww"))


def test_curvature_is_drawn_at_each_measurement(tmp_path: Path) -> None:
    monitor = CurvatureMonitor(every_n_epochs=1, num_steps=3, log_key_prefix="b/")
    drawn = images(fit(monitor, logger=TensorBoardLogger(str(tmp_path)), epochs=2).log_dir)
    assert drawn == {"b/curvature/spectrum": [0, 5, 11], "b/curvature.maps/spectrum": [0, 5, 11]}


def layouts(folder: str) -> list[layout_pb2.Layout]:
    events = EventAccumulator(folder).Reload()
    tags = [tag for tag in events.Tags()["tensors"] if tag == "custom_scalars__config__"]
    return [
        layout_pb2.Layout.FromString(event.tensor_proto.string_val[0]) for tag in tags for event in events.Tensors(tag)
    ]


def test_one_overview_of_both_monitors_beside_the_users_own_layout(tmp_path: Path) -> None:
    class Own(Classifier):
        def on_fit_start(self) -> None:
            logger: Any = self.logger
            logger.experiment.add_custom_scalars({"mine": {"loss": ["Multiline", ["train_loss"]]}})

    logger = TensorBoardLogger(str(tmp_path))
    fit(CurvatureMonitor(every_n_epochs=1, num_steps=3), WeightSpectrumMonitor(), logger=logger, epochs=1, model=Own())
    (own,) = layouts(logger.log_dir)
    assert [category.title for category in own.category] == ["mine"]
    (ours,) = layouts(f"{logger.log_dir}/lightning-ww")
    titles = [chart.title for category in ours.category for chart in category.chart]
    assert "sharpness, and its edge 2/lr" in titles
    assert "alpha" in titles
    seen = set(EventAccumulator(logger.log_dir).Reload().Tags()["scalars"])
    for category in ours.category:
        for chart in category.chart:
            for series in chart.margin.series:
                assert {series.value, series.lower, series.upper} <= seen
            for pattern in chart.multiline.tag:
                assert any(re.match(pattern, tag) for tag in seen), pattern


def test_the_report_tells_when_flags_rose_and_fell_and_goes_on_after_a_resume(tmp_path: Path) -> None:
    first = WeightSpectrumMonitor()
    trainer = fit(first, logger=TensorBoardLogger(str(tmp_path), version="a"), epochs=4)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second = WeightSpectrumMonitor()
    logger = TensorBoardLogger(str(tmp_path), version="b")
    trainer = quiet_trainer(callbacks=[second], logger=logger, max_epochs=6)
    trainer.fit(Deep(), data(), data(shuffle=False), ckpt_path=str(tmp_path / "last.ckpt"))
    events = EventAccumulator(logger.log_dir).Reload()
    text = events.Tensors("ww/report/text_summary")[-1].tensor_proto.string_val[0].decode()
    rose = text.index("After 18 steps (epoch 2): `rank_collapse` at layer `middle.0`")
    assert text.index("`rank_collapse` at layer `middle.0` is over.") < rose


class OwnImages(DummyLogger):
    """Takes images as Lightning's logger for W&B does, which adds its prefix itself."""

    _prefix, LOGGER_JOIN_CHAR = "mine", "-"

    def __init__(self) -> None:
        super().__init__()
        self.images: list[tuple[str, int, Any]] = []

    @property
    def experiment(self) -> Any:
        return object()

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        self.images += [(key, step or 0, image) for image in images]


class Client:
    """As MLflow's."""

    def __init__(self) -> None:
        self.images: list[tuple[Any, ...]] = []

    def log_image(self, run_id: str, image: Any, artifact_file: str | None = None) -> None:
        self.images.append((artifact_file, run_id, image))


class OfAClient(OwnImages):
    """Has a run's number and a client, as Lightning's logger for MLflow."""

    log_image: Any = None
    run_id = "r1"

    def __init__(self) -> None:
        super().__init__()
        self.client = Client()

    @property
    def experiment(self) -> Any:
        return self.client


class Experiment:
    """As Comet's."""

    def __init__(self) -> None:
        self.images: list[tuple[Any, ...]] = []

    def log_image(self, image_data: Any, name: str | None = None, step: int | None = None) -> None:
        self.images.append((name, step, image_data))


class OfAnExperiment(OfAClient):
    run_id: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.client: Any = Experiment()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (OwnImages, ("ww.maps/alpha", 0)),
        (OfAClient, ("mine-ww.maps/alpha/step_0.png", "r1")),
        (OfAnExperiment, ("mine-ww.maps/alpha", 0)),
    ],
)
def test_other_loggers_that_take_images_get_them(make: Any, expected: tuple[Any, ...]) -> None:
    logger = make()
    fit(WeightSpectrumMonitor(metrics=["alpha"]), logger=logger, epochs=1)
    taken = logger.images or logger.client.images
    assert taken[0][:2] == expected
    assert isinstance(taken[0][2], np.ndarray)
    assert taken[0][2].shape[2] == 3
    assert len(taken) == 2 + 3 + 3  # maps, and spectra at the start and at the end


def spied(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """What a function is called with, before it does its work."""
    known, seen = getattr(module, name), []

    def spy(*arguments: Any, **named: Any) -> Any:
        seen.append((arguments, named))
        return known(*arguments, **named)

    monkeypatch.setattr(module, name, spy)
    return seen


def test_maps_hold_the_history_by_layer_and_frame_what_was_flagged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spied(monkeypatch, _weight_panels, "heat_map")
    monitor = WeightSpectrumMonitor(metrics=["alpha", "stable_rank"])
    fit(monitor, logger=TensorBoardLogger(str(tmp_path)))
    (title, rows, columns, values, _), named = seen[-1]
    history = monitor.history
    assert title.startswith("stable_rank")
    assert rows == ["hidden", "head", *(f"middle.{i}" for i in range(6))]
    assert columns == [str(past.step) for past in history]
    for i, name in enumerate(rows):
        for j, past in enumerate(history):
            assert values[i, j] == past.value(name, "stable_rank")
            flagged = any(name in layers for layers in past.flags.values())
            assert named["framed"][i, j] == flagged
    assert named["framed"].any()
    assert named["note"] == "Framed: flagged."


def test_pictures_of_the_whole_history_are_drawn_less_often_as_it_grows() -> None:
    numbers = [number for number in range(1001) if is_redrawn(number, number + 1)]
    assert numbers[:40] == [*range(32), *range(32, 48, 2)]
    assert len(numbers) == 112
    for before, after in pairwise(numbers):
        assert after - before <= max(1, before // 16)  # a sixteenth at most is missing


def test_of_a_history_that_drops_its_oldest_a_sixteenth_at_most_is_missing() -> None:
    for kept in (1, 20, 100, 1000):
        numbers = [number for number in range(50_000, 52_000) if is_redrawn(number, kept)]
        assert max(after - before for before, after in pairwise(numbers)) <= max(1, kept // 16)


def test_the_end_draws_what_the_last_picture_lacks_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_weight_panels, _curvature_panels):
        monkeypatch.setattr(module, "is_redrawn", lambda number, kept: number == 2)
    callbacks = [WeightSpectrumMonitor(metrics=["alpha"]), CurvatureMonitor(every_n_epochs=1, num_steps=3)]
    drawn = images(fit(*callbacks, logger=TensorBoardLogger(str(tmp_path)), epochs=5, model=Classifier()).log_dir)
    assert drawn["ww.maps/alpha"] == drawn["curvature.maps/spectrum"] == [0, 11, 29]
    assert drawn["curvature/spectrum"] == [0, 5, 11, 17, 23, 29]
    drawn = images(fit(*callbacks, logger=TensorBoardLogger(str(tmp_path)), epochs=2, model=Classifier()).log_dir)
    assert drawn["ww.maps/alpha"] == drawn["curvature.maps/spectrum"] == [0, 11]


def test_a_flag_that_rises_is_in_the_map_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_weight_panels, "is_redrawn", lambda number, kept: False)
    drawn = images(fit(WeightSpectrumMonitor(metrics=["alpha"]), logger=TensorBoardLogger(str(tmp_path))).log_dir)
    assert drawn["ww.maps/alpha"] == [0, 17, 35]


def test_a_run_that_is_broken_off_has_its_last_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Classifier):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 2:
                raise RuntimeError("out of luck")

    for module in (_weight_panels, _curvature_panels):
        monkeypatch.setattr(module, "is_redrawn", lambda number, kept: False)
    callbacks = [WeightSpectrumMonitor(metrics=["alpha"]), CurvatureMonitor(every_n_epochs=1, num_steps=3)]
    logger = TensorBoardLogger(str(tmp_path))
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(*callbacks, logger=logger, model=Broken())
    drawn = images(logger.log_dir)
    assert drawn["ww.maps/alpha"] == drawn["ww.spectrum/hidden"] == drawn["curvature.maps/spectrum"] == [0, 11]


def test_a_short_flag_is_framed_in_a_long_history_too() -> None:
    from lightning_ww.callbacks._weights.pictures import WeightPanels
    from lightning_ww.history import History, Measurement

    def past(number: int) -> Measurement:
        flags: Any = {"rank_collapse": ("b",)} if number == 505 else {}
        values = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
        return Measurement(number, number, number, False, {}, ("a", "b"), ("alpha",), values, flags, ())

    history: Any = History(1000, Measurement)
    for number in range(1000):
        history.append(past(number))
    picture = WeightPanels(None, 10, compare=False).maps(history, at_once=True)["ww.maps/alpha"]()
    ys, _ = np.nonzero((picture == FRAME).all(axis=2))
    assert ys.min() >= 84 + 30  # in the second row


def test_a_layer_that_was_never_finite_has_a_framed_row_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spied(monkeypatch, _weight_panels, "heat_map")
    model = Classifier(lr=0.0)
    torch.nn.init.constant_(model.hidden.weight, float("nan"))
    monitor = WeightSpectrumMonitor(metrics=["alpha"], on_error="raise")
    fit(monitor, logger=TensorBoardLogger(str(tmp_path)), epochs=1, model=model)
    (_, rows, _, values, _), named = seen[-1]
    assert rows == ["head", "hidden"]
    assert np.isnan(values[1]).all()
    assert named["framed"][1].all()
    assert not named["framed"][0, 0]
    torch.nn.init.constant_(model.head.weight, float("nan"))
    with pytest.warns(UserWarning, match="nonfinite"):
        fit(WeightSpectrumMonitor(on_error="raise"), logger=TensorBoardLogger(str(tmp_path)), epochs=1, model=model)


def test_the_curvatures_pictures_hold_every_spectrum_and_the_edge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    so_far = spied(monkeypatch, _curvature_panels, "evolution")
    stems = spied(monkeypatch, _curvature_panels, "spectrum_figure")
    monitor = CurvatureMonitor(every_n_epochs=1, num_steps=3)
    fit(monitor, logger=TensorBoardLogger(str(tmp_path)), epochs=2, model=Classifier(lr=0.05))
    (_, densities, steps, edges), _ = so_far[-1]
    assert densities == [past.density for past in monitor.history]
    assert steps == [0, 6, 12]
    assert edges == [2 / 0.05] * 3
    (density, title, edge), _ = stems[-1]
    assert density is monitor.density
    assert title.startswith("Hessian spectrum after 12 steps: from ")
    assert edge == 2 / 0.05


def test_figure_layers_have_to_be_measured() -> None:
    with pytest.raises(
        ValueError, match=re.escape("`WeightSpectrumMonitor(figure_layers=('hidden',))`: none of them is")
    ):
        fit(WeightSpectrumMonitor(layers="middle.*", figure_layers="hidden"), logger=False)


def test_nothing_is_drawn_where_nobody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_weight_panels, "heat_map", None)
    monkeypatch.setattr(_weight_panels, "layer_figure", None)
    fit(WeightSpectrumMonitor(on_error="raise"), logger=CSVLogger(str(tmp_path)), epochs=1)


def test_a_picture_that_fails_costs_nothing_but_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = vars(_weight_panels)["layer_figure"]

    def failing(layer: Any, **named: Any) -> Any:
        if layer.name == "hidden":
            raise RuntimeError("no ink")
        return known(layer, **named)

    monkeypatch.setattr(_weight_panels, "layer_figure", failing)
    monitor = WeightSpectrumMonitor(metrics=["alpha"])
    with pytest.warns(UserWarning, match="could not draw `ww.spectrum`"):
        trainer = fit(monitor, logger=TensorBoardLogger(str(tmp_path)), epochs=1)
    assert images(trainer.log_dir) == {
        "ww.maps/alpha": [0, 5],
        "ww.spectrum/middle.2": [0, 5],
        "ww.spectrum/middle.5": [0, 5],
    }


def test_a_writer_is_a_summary_writer_of_the_users_kind(tmp_path: Path) -> None:
    kinds = []

    class Kind(SummaryWriter):
        def __init__(self, log_dir: str) -> None:
            super().__init__(log_dir)
            kinds.append(log_dir)

    logger = TensorBoardLogger(str(tmp_path))
    logger._experiment = Kind(str(tmp_path / "own"))
    fit(WeightSpectrumMonitor(), logger=logger, epochs=1)
    assert kinds == [str(tmp_path / "own"), f"{tmp_path / 'own'}/lightning-ww"]
    assert "matplotlib.pyplot" not in sys.modules or sys.modules["matplotlib.pyplot"].get_fignums() == []


class Failing(DummyLogger):
    """Its experiment fails from that hook of the run on."""

    def __init__(self, since: str) -> None:
        super().__init__()
        self.since, self.is_broken = since, False

    @property
    def experiment(self) -> Any:
        if self.is_broken:
            raise ConnectionError("the server is gone")
        return object()


@pytest.mark.parametrize("since", ["on_fit_start", "on_train_epoch_end"])
@pytest.mark.parametrize("on_error", ["warn", "raise"])
def test_a_logger_that_fails_costs_the_run_nothing(since: str, on_error: Any) -> None:
    class Breaks(Callback):
        pass

    logger = Failing(since)
    setattr(Breaks, since, lambda *_: setattr(logger, "is_broken", True))
    callbacks = [Breaks(), WeightSpectrumMonitor(on_error=on_error), CurvatureMonitor(num_steps=3, on_error=on_error)]
    if on_error == "raise":
        with pytest.raises(ConnectionError):
            fit(*callbacks, logger=logger, epochs=2)
    else:
        with pytest.warns(UserWarning, match="the server is gone"):
            trainer = fit(*callbacks, logger=logger, epochs=2)
        assert trainer.global_step == 12


def test_an_error_of_the_users_is_the_one_that_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Classifier):
        def on_train_epoch_start(self) -> None:
            monkeypatch.setattr(_weight_panels, "heat_map", None)
            monkeypatch.setattr(_weight_panels, "is_redrawn", lambda number, kept: False)
            if self.current_epoch == 1:
                raise KeyError("the user's")

    logger = TensorBoardLogger(str(tmp_path))
    with pytest.raises(KeyError, match="the user's"), pytest.warns(UserWarning, match="could not draw"):
        fit(WeightSpectrumMonitor(on_error="raise"), logger=logger, model=Broken())


def test_layers_without_a_spectrum_take_no_other_ones_place() -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({name: nn.Linear(32, 32) for name in "abcdef"})
    panels = _weight_panels.WeightPanels(None, 10, compare=False)
    with torch.no_grad():
        for name in "abcd":
            weight: Any = model[name].weight
            weight.fill_(float("nan"))
    report = analyze(model)
    drawn = panels.spectra(report, ["a", "b", "c", "d", "e", "f"], 1, 1, is_baseline=False)
    assert list(drawn) == ["ww.spectrum/e", "ww.spectrum/f"]
    assert panels.waiting == ["a", "b", "c", "d"]  # until they have one
    with torch.no_grad():
        weight = model["b"].weight
        torch.nn.init.normal_(weight)
    assert list(panels.spectra(analyze(model), [], 2, 2, is_baseline=False)) == ["ww.spectrum/b"]


def test_of_many_layers_the_flagged_ones_are_rows_first_and_there_are_not_too_many() -> None:
    names = [str(i) for i in range(1000)]
    rows, note = _weight_panels._rows(names, {"3", "500"})
    assert len(rows) == 150
    assert {"0", "3", "500", "999"} <= set(rows)
    assert rows == sorted(rows, key=int)
    assert note == "150 of 1000 layers: flagged ones, the others evenly by depth."
    rows, note = _weight_panels._rows(names, set(names[:400]))
    assert len(rows) == 150
    assert set(rows) <= set(names[:400])
    assert _weight_panels._rows(names[:150], {"3"}) == (names[:150], "")


def test_a_flag_of_a_layer_that_cannot_be_measured_any_more_is_not_over() -> None:
    report = analyze(nn.Linear(32, 32))
    events = Events()
    events.note("Now", report, Diagnosis(), {"rank_collapse": ["gone", report.layers[0].name]})
    assert events.lines == [
        "Now: `rank_collapse` at layer `gone` cannot be measured any more.",
        f"Now: `rank_collapse` at layer `{report.layers[0].name}` is over.",
    ]
    for _ in range(60):
        events.note("Later", report, Diagnosis(), {"rank_collapse": ["gone", "gone too"]})
    assert len(events.lines) == 100
    assert events.lines[0] == "There were earlier ones, which are not kept."
    assert all(line.startswith("Later") for line in events.lines[1:])


def test_the_comparison_of_tails_stands_in_the_monitors_pictures_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_ww.weights.plots import layer

    seen = spied(monkeypatch, layer, "tail_caption")
    fit(WeightSpectrumMonitor(compare_tails=True), logger=TensorBoardLogger(str(tmp_path)), epochs=1)
    assert len(seen) == 6
    assert "R > 0 favours the power law" in layer.tail_caption(*seen[0][0])


def test_an_error_of_the_users_does_not_change_what_becomes_of_ours(tmp_path: Path) -> None:
    class BreaksOnce(Classifier):
        is_broken = True

        def on_train_epoch_end(self) -> None:
            if self.is_broken:
                self.is_broken = False
                raise RuntimeError("once")

    model, monitor = BreaksOnce(), WeightSpectrumMonitor(on_error="raise")
    trainer = quiet_trainer(callbacks=[monitor], logger=TensorBoardLogger(str(tmp_path)), max_epochs=2)
    with pytest.raises(RuntimeError, match="once"):
        trainer.fit(model, data(), data(shuffle=False))
    monitor._panels = None  # type: ignore[assignment]  # so that the next measurement fails
    with pytest.raises(AttributeError):
        trainer.fit(model, data(), data(shuffle=False))


def test_no_picture_of_one_run_gets_into_another(tmp_path: Path) -> None:
    class Refusing(Classifier):
        def setup(self, stage: str) -> None:
            raise RuntimeError("not today")

    callbacks = WeightSpectrumMonitor(), CurvatureMonitor(num_steps=3)
    fit(*callbacks, logger=False, epochs=1)
    logger = TensorBoardLogger(str(tmp_path))
    with pytest.raises(RuntimeError, match="not today"):
        fit(*callbacks, logger=logger, epochs=1, model=Refusing())
    assert not Path(logger.log_dir).exists() or images(logger.log_dir) == {}
