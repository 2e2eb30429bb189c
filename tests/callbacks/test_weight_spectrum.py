"""`WeightSpectrumMonitor`: when it measures, what it publishes, and that nothing it meets stops the run."""

from __future__ import annotations

import csv
import math
import pickle
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fits import fit
from helpers.fits import weight_monitor as monitor
from helpers.networks import Classifier, Growing, data, quiet_trainer
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_ww import METRICS, History, Nonfinite, RankCollapse, Trigger, analyze
from lightning_ww.callbacks import SpectralEarlyStopping, WeightSpectrumMonitor
from lightning_ww.weights.metrics import BANDS, TABLE, needing
from lightning_ww.weights.slices import Weight

SUMMARY = {"ww/num_flagged", "ww/seconds"} | {f"ww/{name}" for name, row in TABLE.items() if row.summary is not None}

WITHOUT_SHUFFLE = [name for name in METRICS if name not in needing("shuffle")]


class Recorder(Callback):
    """What `callback_metrics` says of our key in each hook where somebody acts on it."""

    def __init__(self, key: str = "ww/distance_from_init_relative") -> None:
        self.key = key
        self.seen: dict[str, list[float | None]] = {}

    def _write(self, where: str, trainer: Trainer) -> None:
        value = trainer.callback_metrics.get(self.key)
        self.seen.setdefault(where, []).append(None if value is None else float(value))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write("train_start", trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._write("validation_end", trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write("epoch_end", trainer)


def test_docstring_lists_every_key() -> None:
    listed = str(WeightSpectrumMonitor.__doc__)
    for key in SUMMARY | {"ww/overhead", "ww.<metric>/<layer>", "flags/<trigger>", "flags.<trigger>/<layer>"}:
        assert f"``{key}``" in listed, key
    assert f"``ww/{BANDS[0]}_q10``, ``_q50``, ``_q90``, and likewise for {' and '.join(BANDS[1:])}" in " ".join(
        listed.split()
    )
    for key in ("ww.esd/<layer>", "ww/report", "ww.maps/<metric>", "ww.spectrum/<layer>"):
        assert f"``{key}``" in listed, key


@dataclass(frozen=True)
class Far(Trigger):
    """Far from the initial weight."""

    needs = ("distance_from_init",)

    def judge(self, history: History[Any], layer: str) -> str | None:
        return None


def test_the_initial_weights_are_kept_from_the_fit_in_which_a_trigger_needs_them() -> None:
    ours, model = monitor(metrics=["alpha"]), Classifier()
    trainer = quiet_trainer(callbacks=[ours], max_epochs=1)
    trainer.fit(model, data(), data(32, shuffle=False))
    assert ours.history[-1].value("hidden", "distance_from_init") is None
    ours.add_trigger(Far())
    trainer.fit_loop.max_epochs = 3
    trainer.fit(model, data(), data(32, shuffle=False))
    assert ours.history[0].value("hidden", "distance_from_init") is None
    assert float(ours.history[-1].value("hidden", "distance_from_init") or 0) > 0


# ── When ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"limit_val_batches": 0},
        {"check_val_every_n_epoch": 2},
        {"val_check_interval": 0.5},
        {"check_val_every_n_epoch": None, "val_check_interval": 4},
        {"accumulate_grad_batches": 4},
        {"limit_train_batches": 3},
        {"reload_dataloaders_every_n_epochs": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("first", [True, False])
def test_every_consumer_sees_the_value_of_its_own_epoch(arguments: dict[str, Any], first: bool) -> None:
    ours, recorder = monitor(), Recorder()
    fit(*([ours, recorder] if first else [recorder, ours]), max_epochs=3, **arguments)
    values = [past.summary["distance_from_init_relative"] for past in ours.history]
    assert len(set(values)) == 4
    assert recorder.seen["epoch_end"] == pytest.approx(values[1:])
    if first:
        assert recorder.seen["train_start"] == [0.0]
    for value in recorder.seen.get("validation_end", []):
        assert value is not None
        assert any(value == pytest.approx(known) for known in values)
    if arguments == {}:
        assert recorder.seen["validation_end"] == pytest.approx(values[1:])


@pytest.mark.parametrize("on_train_epoch_end", [None, True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"check_val_every_n_epoch": 2},
        {"val_check_interval": 0.5},
        {"accumulate_grad_batches": 4},
        {"limit_train_batches": 3},
    ],
    ids=str,
)
def test_early_stopping_and_checkpoints_on_alpha_see_the_epochs_own_value(
    on_train_epoch_end: bool | None, arguments: dict[str, Any], tmp_path: Path
) -> None:
    class Spy(EarlyStopping):
        seen: list[tuple[int, float]] = []  # noqa: RUF012

        def _evaluate_stopping_criteria(self, current: torch.Tensor) -> Any:
            self.seen.append((ours_trainer().global_step, float(current)))
            return super()._evaluate_stopping_criteria(current)

    def ours_trainer() -> Trainer:
        return holder[0].trainer

    holder: list[Classifier] = [Classifier()]
    ours = monitor()
    Spy.seen = []
    stopping = Spy("ww/alpha", patience=99, strict=True, check_on_train_epoch_end=on_train_epoch_end)
    checkpoint = ModelCheckpoint(tmp_path, monitor="ww/alpha", filename="{step}", save_top_k=-1)
    trainer = fit(stopping, checkpoint, ours, model=holder[0], max_epochs=4, enable_checkpointing=True, **arguments)
    known = {past.step: past.summary["alpha"] for past in ours.history}
    ends_only = arguments.get("val_check_interval") is None  # within an epoch, its last measured value is seen
    assert Spy.seen
    for step, value in Spy.seen:
        assert value == pytest.approx(known[max(s for s in known if s <= step)])
        assert not ends_only or step in known
    best = {Path(path).stem: float(score) for path, score in checkpoint.best_k_models.items()}
    assert best
    for name, score in best.items():
        step = int(name.partition("=")[2].partition("-")[0])
        assert score == pytest.approx(known[max(s for s in known if s <= step)])
        assert not ends_only or step in known
    assert trainer.current_epoch == 4


def test_an_iterable_without_length() -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(data().dataset[i] for i in range(40))

    ours, trainer = monitor(), quiet_trainer(max_epochs=2)
    trainer.callbacks.append(ours)  # type: ignore[attr-defined]
    trainer.fit(Classifier(), torch.utils.data.DataLoader(Stream(), batch_size=10), data(32, shuffle=False))
    assert [past.step for past in ours.history] == [0, 4, 8]


def test_nothing_is_measured_during_the_sanity_check() -> None:
    class Spy(WeightSpectrumMonitor):
        def _snapshot(self, trainer: Trainer, pl_module: LightningModule) -> Any:
            assert not trainer.sanity_checking
            return super()._snapshot(trainer, pl_module)

    ours = Spy(on_error="raise")
    fit(ours, num_sanity_val_steps=2)
    assert len(ours.history) == 3


@pytest.mark.parametrize("schedule", [{}, {"every_n_epochs": 5}, {"every_n_train_steps": 1}])
def test_fast_dev_run_goes_the_whole_way_once_and_cheaply(schedule: dict[str, Any]) -> None:
    ours = monitor(metrics="all", **schedule)
    fit(ours, fast_dev_run=3)
    assert [past.step for past in ours.history] == [0, 3]
    assert ours.history[0].value("hidden", "rand_distance_floor") is None  # which costs two more shuffles


def test_barebones_warns_once_and_does_nothing() -> None:
    ours = WeightSpectrumMonitor()
    trainer = Trainer(barebones=True, callbacks=[ours], max_epochs=2, accelerator="cpu")
    with pytest.warns(UserWarning) as caught:  # noqa: PT030 -- Lightning's own among them
        trainer.fit(Classifier(), data())
    ours_said = [str(w.message) for w in caught if "WeightSpectrumMonitor" in str(w.message)]
    assert ours_said == ["`WeightSpectrumMonitor` does nothing under `Trainer(barebones=True)`."]
    assert ours.report is None


# ── What ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_summaries_are_in_callback_metrics_as_finite_scalars() -> None:
    ours = monitor()
    trainer = fit(ours)
    found = {key: value for key, value in trainer.callback_metrics.items() if key.startswith("ww")}
    assert set(found) == SUMMARY | {"ww/overhead"}
    for value in found.values():
        assert isinstance(value, torch.Tensor)
        assert value.ndim == 0
        assert torch.isfinite(value)
    assert {f"ww/{name}" for name in ours.history[0].summary} == SUMMARY
    assert 0 < ours.history[-1].summary["overhead"] < 1
    assert all(key.startswith(("ww/", "train", "val")) for key in trainer.callback_metrics)


def test_numbers_are_those_of_analyze() -> None:
    ours, model = monitor(metrics="all", shuffle="exact"), Classifier()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(ours, model=model)
    report = analyze(model, initial=before, shuffle="exact", mp_fit=True, cka=True, bootstrap=100)
    for name in ("hidden", "head"):
        for metric in METRICS:
            if metric not in (*needing("floor"), *needing("previous")):
                assert ours.history[-1].value(name, metric) == report[name].metric(metric), metric
    assert ours.history[-1].summary["alpha"] == report.summary["alpha"]


def test_the_floor_is_measured_once() -> None:
    ours = monitor(metrics=["rand_distance", "rand_distance_floor"])
    fit(ours)
    floors = [past.value("hidden", "rand_distance_floor") for past in ours.history]
    assert floors[0] is not None
    assert len(set(floors)) == 1


def test_tensorboard_holds_every_tag_of_every_layer(tmp_path: Path) -> None:
    ours = monitor()
    fit(ours, logger=TensorBoardLogger(str(tmp_path), name="", version=""))
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0, "histograms": 0}).Reload()
    scalars = set(events.Tags()["scalars"])
    layers = {"hidden", "head"}
    expected = SUMMARY | {"ww/overhead"}
    expected |= {f"ww/{m}_q{q}" for m in ("alpha", "rand_distance", "stable_rank") for q in (10, 50, 90)}
    for metric in ("alpha", "alpha_hill", "rand_distance", "sv_min", "distance_from_init", "stable_rank"):
        expected |= {f"ww.{metric}/{layer}" for layer in layers}
    for trigger in ("nonfinite", "rank_collapse", "correlation_trap"):
        expected |= {f"flags/{trigger}", *(f"flags.{trigger}/{layer}" for layer in layers)}
    assert {tag for tag in scalars if tag.startswith(("ww", "flags"))} == expected
    assert [event.step for event in events.Scalars("ww.alpha/hidden")] == [0, 5, 11]  # Lightning's own axis
    assert {event.step for event in events.Scalars("val_loss")} == {5, 11}
    assert set(events.Tags()["histograms"]) == {"ww.esd/hidden", "ww.esd/head"}
    histograms = [event.histogram_value for event in events.Histograms("ww.esd/hidden")]
    assert [h.num for h in histograms] == [24] * 3
    assert len({tuple(h.bucket_limit) for h in histograms}) == 1  # the bins are fixed
    assert "ww/report/text_summary" in events.Tags()["tensors"]
    report = events.Tensors("ww/report/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert "| `hidden` | 32 × 24 |" in report


def test_logger_prefix_and_key_prefix_are_put_before_every_tag(tmp_path: Path) -> None:
    ours = monitor(log_key_prefix="teacher/")
    trainer = fit(ours, logger=TensorBoardLogger(str(tmp_path), name="", version="", prefix="run"))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert "run-teacher/ww/alpha" in events.Tags()["scalars"]
    assert "run-teacher/ww.alpha/head" in events.Tags()["scalars"]
    assert "run-teacher/ww.esd/head" in events.Tags()["histograms"]
    assert "teacher/ww/alpha" in trainer.callback_metrics


def test_two_loggers_both_get_the_scalars(tmp_path: Path) -> None:
    loggers = [
        CSVLogger(str(tmp_path / "csv"), name="", version=""),
        TensorBoardLogger(str(tmp_path / "tb"), name="", version=""),
    ]
    fit(monitor(), logger=loggers)
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        written = [row["ww.alpha/hidden"] for row in csv.DictReader(file) if row["ww.alpha/hidden"]]
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    assert [float(v) for v in written] == pytest.approx([e.value for e in events.Scalars("ww.alpha/hidden")], rel=1e-5)
    assert len(written) == 3


def test_without_a_logger_the_numbers_are_in_the_monitor() -> None:
    ours = monitor()
    fit(ours, logger=False)
    assert ours.report is not None
    assert ours.report["hidden"].alpha is not None
    table = ours.history.to_pandas()
    assert len(table) == 3 * 2
    assert list(table.columns[:4]) == ["step", "epoch", "layer", "alpha"]


def test_history_is_bounded() -> None:
    ours = monitor(max_history=2)
    fit(ours, max_epochs=4)
    assert [past.epoch for past in ours.history] == [2, 3]


# ── What goes wrong ───────────────────────────────────────────────────────────────────────────────────────────────────


class Lose(Callback):
    """Makes a layer's weights NaN after the first epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            with torch.no_grad():
                pl_module.head.weight[0, 0] = float("nan")  # type: ignore[operator,union-attr]


def test_a_run_that_becomes_nan_is_flagged_and_never_puts_nan_into_callback_metrics() -> None:
    ours = monitor()
    with pytest.warns(UserWarning, match="`nonfinite` at layer") as caught:
        trainer = fit(ours, Lose(), max_epochs=3)
    assert len([w for w in caught if "nonfinite" in str(w.message)]) == 1  # of both layers
    assert set(ours.diagnosis.layers("nonfinite")) == {"head", "hidden"}  # the gradient carries it on
    for past in ours.history:
        assert all(math.isfinite(value) for value in past.summary.values())
    found = {key: value for key, value in trainer.callback_metrics.items() if key.startswith("ww")}
    assert set(found) == SUMMARY | {"ww/overhead"}  # a key that existed exists; its last value is held
    assert all(torch.isfinite(value) for value in found.values())


class BrokenMeasure(WeightSpectrumMonitor):
    def _measure(self, snapshot: Any, moment: Any) -> Any:
        raise RuntimeError("no spectra today")


def test_an_error_in_a_measurement_warns_once_and_the_run_goes_on() -> None:
    ours = BrokenMeasure()
    message = (
        "`BrokenMeasure` could not measure at step 0 (RuntimeError: no spectra today). Training goes on; errors "
        "of this kind will not be reported again. Set `on_error='raise'` to see where it comes from."
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$") as caught:
        trainer = fit(ours, max_epochs=2)
    assert len([w for w in caught if "no spectra" in str(w.message)]) == 1
    assert trainer.global_step == 12
    assert ours.report is None
    with pytest.raises(RuntimeError, match="no spectra today"):
        fit(BrokenMeasure(on_error="raise"))


def test_an_error_in_a_logger_does_not_stop_the_run_nor_the_other_loggers(tmp_path: Path) -> None:
    class Broken(CSVLogger):
        def log_metrics(self, metrics: Any, step: Any = None) -> None:
            if any(key.startswith("ww") for key in metrics):
                raise OSError("disk full")

    ours = WeightSpectrumMonitor()
    good = CSVLogger(str(tmp_path / "good"), name="", version="")
    with pytest.warns(UserWarning, match=r"could not log to Broken at step 0 \(OSError: disk full\)"):
        trainer = fit(ours, logger=[Broken(str(tmp_path / "broken")), good])
    assert trainer.global_step == 12
    assert "ww/alpha" in trainer.callback_metrics
    assert "ww.alpha/hidden" in (tmp_path / "good" / "metrics.csv").read_text()


def test_an_error_after_the_measurement_does_not_stop_the_run() -> None:
    class Broken(WeightSpectrumMonitor):
        def _view(self, measurement: Any) -> Any:
            raise OverflowError("no view today")

    ours = Broken()
    with pytest.warns(UserWarning, match="OverflowError: no view today"):
        trainer = fit(ours)
    assert trainer.global_step == 12
    assert len(ours.history) == 3


@pytest.mark.parametrize("error", [RuntimeError("training failed"), KeyboardInterrupt()])
def test_a_failed_or_interrupted_run_leaves_the_history(error: BaseException) -> None:
    class Failing(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            if self.current_epoch == 1:
                raise error
            return super().training_step(batch, batch_idx)

    ours = monitor()
    with pytest.raises((RuntimeError, SystemExit)):
        fit(ours, model=Failing())
    assert [past.step for past in ours.history] == [0, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"every_n_epochs": 0},
            "`WeightSpectrumMonitor(every_n_epochs=0)`: expected an integer of at least 1, or `None`.",
        ),
        (
            {"every_n_train_steps": "2"},
            "`WeightSpectrumMonitor(every_n_train_steps='2')`: expected an integer of at least 1, or `None`.",
        ),
        (
            {"every_n_epochs": None},
            "`WeightSpectrumMonitor(every_n_epochs=None, every_n_train_steps=None)` would never measure: set one of the two.",
        ),
        (
            {"metrics": ["alpha", "beta"]},
            f"`WeightSpectrumMonitor(metrics=...)` does not know 'beta'. Known are 'all' and: {', '.join(METRICS)}.",
        ),
        (
            {"shuffle": "never"},
            "`WeightSpectrumMonitor(shuffle='never')`: expected one of ('auto', 'exact', 'analytic', 'off').",
        ),
        ({"seed": -1}, "`WeightSpectrumMonitor(seed=-1)`: expected an integer of at least 0."),
        ({"max_logged_layers": 0}, "`WeightSpectrumMonitor(max_logged_layers=0)`: expected an integer of at least 1."),
        ({"max_history": 1.5}, "`WeightSpectrumMonitor(max_history=1.5)`: expected an integer of at least 1."),
        ({"metrics": 3}, "`WeightSpectrumMonitor(metrics=3)`: expected a string, a list of strings, or `None`."),
        ({"layers": 3}, "`WeightSpectrumMonitor(layers=3)`: expected a string, a list of strings, or `None`."),
        ({"include_frozen": "no"}, "`WeightSpectrumMonitor(include_frozen='no')`: expected a `bool`."),
        (
            {"triggers": "rank_collapse"},
            "`WeightSpectrumMonitor(triggers='rank_collapse')`: expected a list of triggers, or `None` for the default ones.",
        ),
        (
            {"triggers": [3]},
            "`WeightSpectrumMonitor(triggers=[3])`: expected objects such as `RankCollapse()`, each a `Trigger`.",
        ),
        (
            {"triggers": [RankCollapse(), RankCollapse(enter=0.6)]},
            "`WeightSpectrumMonitor(triggers=[RankCollapse(enter=0.5, leave=0.4, share=0.25, alone=0.9, min_short_side=16), "
            "RankCollapse(enter=0.6, leave=0.4, share=0.25, alone=0.9, min_short_side=16)])`: expected one trigger of each "
            "name, but 'rank_collapse' is there twice.",
        ),
        (
            {"triggers": [Nonfinite(), RankCollapse()], "shuffle": "off"},
            "`WeightSpectrumMonitor(triggers=[RankCollapse(enter=0.5, leave=0.4, share=0.25, alone=0.9, min_short_side=16)])` "
            f"needs 'rank_deficit', which is not measured. Measured are: {', '.join(WITHOUT_SHUFFLE)}.",
        ),
        ({"log_key_prefix": None}, "`WeightSpectrumMonitor(log_key_prefix=None)`: expected a `str`."),
        ({"on_error": "ignore"}, "`WeightSpectrumMonitor(on_error='ignore')`: expected one of ('warn', 'raise')."),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_arguments_out_of_their_domain(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        WeightSpectrumMonitor(**arguments)


def test_a_pattern_that_matches_nothing_stops_before_training() -> None:
    model = Classifier()
    message = "`WeightSpectrumMonitor(layers='encoder.*')` matches no weight matrix. This model has: `hidden`, `head`."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(WeightSpectrumMonitor(layers="encoder.*"), model=model)
    assert model.trainer.global_step == 0


def test_a_model_without_weights_is_one_warning_and_trains_on() -> None:
    watched = WeightSpectrumMonitor()
    said = (
        "`WeightSpectrumMonitor` cannot measure in this run, and stops trying. It found no weight matrix in this "
        "BoringModel that can be measured: `layer` (2 × 32: 2 eigenvalues, and 8 are needed)."
    )
    trainer = quiet_trainer(
        callbacks=[watched, SpectralEarlyStopping(stop_on=["rank_collapse"])],
        max_epochs=2,
        limit_train_batches=3,
        limit_val_batches=1,
    )
    with pytest.warns(UserWarning, match=re.escape(said)) as caught:
        trainer.fit(BoringModel())
    assert sum("cannot measure" in str(warning.message) for warning in caught) == 1
    assert (trainer.global_step, len(watched.history), watched.report) == (6, 0, None)
    with pytest.raises(ValueError, match=r"^`analyze` found no weight matrix in this BoringModel that can be measured"):
        analyze(BoringModel())


def test_a_layer_that_cannot_be_measured_is_told_once_or_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_ww.weights import spectrum

    original = spectrum.singular_values

    def broken(slices: Any, **options: Any) -> Any:
        if slices.shape[1:] == (16, 32):
            raise ArithmeticError("no spectrum")
        return original(slices, **options)

    monkeypatch.setattr("lightning_ww.weights.spectrum.singular_values", broken)
    ours = WeightSpectrumMonitor()
    message = "`WeightSpectrumMonitor` skips layer `head`: ArithmeticError: no spectrum."
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$") as caught:
        fit(ours)
    assert len([w for w in caught if "skips layer" in str(w.message)]) == 1
    assert ours.report is not None
    assert [layer.name for layer in ours.report.layers] == ["hidden"]


def test_warnings_that_are_errors_do_not_stop_the_run(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        trainer = fit(WeightSpectrumMonitor(), Lose(), max_epochs=3)
    assert trainer.global_step == 18
    assert "`nonfinite` at layer" in caplog.text


def test_a_named_layer_that_goes_ends_nothing() -> None:
    ours = monitor(layers=["hidden", "late"])
    model = Growing()
    model.late = nn.Linear(20, 20)
    fit(ours, model=model, max_epochs=4)
    assert ours.history[-1].layers == ("hidden",)


def test_the_distance_is_from_the_weights_of_the_first_step() -> None:
    class Loading(Classifier):
        def on_fit_start(self) -> None:
            with torch.no_grad():
                self.hidden.weight.mul_(3)

    ours = monitor()
    fit(ours, model=Loading())
    assert ours.history[0].value("hidden", "distance_from_init") == 0


def test_scripted_modules_are_measured() -> None:
    model: Any = Classifier()
    model.hidden = torch.jit.script(model.hidden)
    ours = monitor()
    fit(ours, model=model)
    assert ours.history[-1].layers == ("hidden", "head")


def test_two_monitors_under_the_same_keys_are_told() -> None:
    message = "2 `WeightSpectrumMonitor`s of this Trainer log under the same keys, and overwrite each other's"
    with pytest.warns(UserWarning, match=message) as caught:
        fit(monitor(layers="hidden"), monitor(layers="head"))
    assert len([w for w in caught if "same keys" in str(w.message)]) == 1


def test_a_loss_with_an_infinite_class_weight_is_not_a_lost_layer() -> None:
    model = Classifier()
    model.loss = nn.CrossEntropyLoss(weight=torch.tensor([float("inf")] * 16))
    ours = monitor()
    fit(ours, model=model)
    assert not ours.diagnosis.flags


def test_a_pickled_monitor_does_not_take_the_trainer_and_the_model_along() -> None:
    ours = monitor()
    model = Classifier()
    model.ballast = torch.zeros(1_000_000)
    fit(ours, model=model)
    assert len(pickle.dumps(ours)) < 100_000
    again = pickle.loads(pickle.dumps(ours))
    fit(again)
    assert len(again.history) == 3


@pytest.mark.parametrize(("execution", "is_copied"), [("sync", False), ("auto", False), ("background", True)])
def test_weights_are_copied_only_where_training_goes_on_meanwhile(execution: Any, is_copied: bool) -> None:
    found: list[bool] = []

    class Looking(WeightSpectrumMonitor):
        def _snapshot(self, trainer: Any, pl_module: Any) -> Any:
            snapshot = super()._snapshot(trainer, pl_module)
            weights = list(snapshot.weights)
            live = {parameter.data_ptr() for parameter in pl_module.parameters()}
            found.extend(one.slices.data_ptr() not in live for one in weights if isinstance(one, Weight))
            return replace(snapshot, weights=weights)

    trainer = quiet_trainer(callbacks=[Looking(execution=execution)], max_epochs=1)
    trainer.fit(Classifier(), data(), data(16, shuffle=False))
    assert found
    assert set(found) == {is_copied}
