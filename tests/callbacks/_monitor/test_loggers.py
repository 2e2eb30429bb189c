"""Each logger gets what it takes, in its own form; one that fails takes nothing from the others."""

from __future__ import annotations

import importlib
import logging
import re
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from helpers.drawn import fit, images, layouts
from pytorch_lightning import Callback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger
from torch.utils.tensorboard import SummaryWriter

from lightning_ww.callbacks import CurvatureMonitor, WeightSpectrumMonitor
from lightning_ww.callbacks._monitor.loggers import MLflowSink
from lightning_ww.callbacks._monitor.view import Histogram, View


class Counting(WeightSpectrumMonitor):
    """Counts how often each picture is drawn."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.drawn: Counter[str] = Counter()

    def _view(self, measurement: Any) -> View:
        view = super()._view(measurement)
        return replace(view, pictures=[replace(one, draw=partial(self._count, one)) for one in view.pictures])

    def _count(self, picture: Any) -> Any:
        self.drawn[picture.key] += 1
        return picture.draw()


@pytest.mark.usefixtures("no_bound_on_pictures")
def test_two_loggers_get_the_same_pictures_drawn_once(tmp_path: Path) -> None:
    both = [TensorBoardLogger(str(tmp_path), name=name) for name in ("a", "b")]
    monitor = Counting(metrics=["alpha"])
    fit(monitor, logger=both, epochs=1)
    first, second = (images(logger.log_dir) for logger in both)
    assert first == second
    assert first["ww.maps/alpha"] == [0, 5]
    assert monitor.drawn["maps/alpha"] == 2
    assert all(len(layouts(f"{logger.log_dir}/lightning-ww")) == 1 for logger in both)


def test_a_run_that_is_logged_elsewhere_has_its_pictures_and_its_overview_there() -> None:
    fsspec: Any = importlib.import_module("fsspec")

    trainer = fit(WeightSpectrumMonitor(metrics=["alpha"]), logger=TensorBoardLogger("memory://runs"), epochs=1)
    files = fsspec.filesystem("memory").find("/runs")
    assert [Path(file).parent.name for file in files if "events" in file] == ["version_0", "lightning-ww"]
    assert trainer.log_dir == "memory://runs/lightning_logs/version_0"


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
        self.texts: list[tuple[Any, ...]] = []

    def log_image(self, run_id: str, image: Any, artifact_file: str | None = None) -> None:
        self.images.append((artifact_file, run_id, image))

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.texts.append((artifact_file, run_id, text))


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
        self.texts: list[tuple[Any, ...]] = []
        self.histograms: list[tuple[Any, ...]] = []

    def log_image(self, image_data: Any, name: str | None = None, step: int | None = None) -> None:
        self.images.append((name, step, image_data))

    def log_text(self, text: str, step: int | None = None, metadata: Any = None) -> None:
        self.texts.append((metadata, step, text))

    def log_histogram_3d(self, values: Any, name: str | None = None, step: int | None = None) -> None:
        self.histograms.append((name, step, values))


class OfAnExperiment(OfAClient):
    run_id: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.client: Any = Experiment()


@pytest.mark.usefixtures("no_bound_on_pictures")
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


def test_nothing_is_drawn_where_nobody_looks(tmp_path: Path) -> None:
    monitor = Counting(on_error="raise")
    fit(monitor, logger=CSVLogger(str(tmp_path)), epochs=1)
    assert not monitor.drawn


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


def test_texts_and_histograms_take_the_form_of_each_logger() -> None:
    mlflow, comet = OfAClient(), OfAnExperiment()
    fit(WeightSpectrumMonitor(metrics=["alpha"]), logger=[mlflow, comet], epochs=1)
    assert mlflow.client.texts[0][:2] == ("mine-ww/report/step_0.md", "r1")
    assert mlflow.client.texts[0][2].startswith("| layer | shape |")
    assert comet.client.texts[0][:2] == ({"name": "mine-ww/report"}, 0)
    name, step, values = comet.client.histograms[0]
    assert (name, step, len(values)) == ("mine-ww.esd/hidden", 0, 24)


def test_what_a_logger_does_not_take_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        fit(WeightSpectrumMonitor(), logger=[CSVLogger(str(tmp_path)), OfAClient()], epochs=1)
    said = [record.message for record in caplog.records if "does not take them" in record.message]
    assert said == [
        "`CSVLogger` gets no histograms or texts or images: it does not take them.",
        "`OfAClient` gets no histograms: it does not take them.",
    ]


def test_a_histogram_counts_as_numpy_does() -> None:
    histogram = Histogram(np.array([-1.0, 0.2, 0.4, 2.0]), np.array([-1.0, 0.0, 1.0, 2.0]))
    assert histogram.counts.tolist() == [1, 2, 1]


def test_keys_stay_apart_where_mlflow_allows_few_letters() -> None:
    class Recording:
        logged: ClassVar[dict[str, float]] = {}

        def log_metrics(self, values: dict[str, float], step: int) -> None:
            self.logged.update(values)

    keys = ["ww.alpha/a[0]", "ww.alpha/a0", "ww.alpha/层", "ww.alpha/", "ww.alpha/b:c", "ww.alpha/bc"]
    MLflowSink(Recording()).scalars(dict.fromkeys(keys, 1.0), 0)
    assert len(Recording.logged) == len(keys)
    assert "ww.alpha/a0" in Recording.logged
    for key in Recording.logged:  # as Lightning's logger for MLflow would change them
        assert re.sub("[^a-zA-Z0-9_/. -]+", "", key) == key
