"""`SpectralEarlyStopping`: when it stops, on what, and what it remembers."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.collapsing import Collapse, Still
from helpers.networks import data, quiet_trainer
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_ww.callbacks import SpectralEarlyStopping, SpectralStoppingReason, WeightSpectrumMonitor

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*`rank_collapse` at layer"),  # the warnings that are wanted here
    pytest.mark.filterwarnings("ignore:.*`correlation_trap` at layer"),
    pytest.mark.filterwarnings("ignore:.*`nonfinite` at layer"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


def fit(*callbacks: Callback, model: LightningModule | None = None, **arguments: Any) -> Trainer:
    trainer = quiet_trainer(callbacks=list(callbacks), **({"max_epochs": 8} | arguments))
    trainer.fit(model or Still(), data(), data(32, seed=1, shuffle=False))
    return trainer


def stopping(**arguments: Any) -> SpectralEarlyStopping:
    defaults: dict[str, Any] = {"stop_on": ["rank_collapse"], "min_epochs": 0}
    return SpectralEarlyStopping(**(defaults | arguments))


ALWAYS = tuple(range(100))


@pytest.mark.parametrize("monitor_first", [True, False])
@pytest.mark.parametrize("patience", [1, 3])
def test_the_patience_th_flagged_measurement_stops_whatever_the_order(monitor_first: bool, patience: int) -> None:
    ours, monitor = stopping(patience=patience), WeightSpectrumMonitor(on_error="raise")
    pair: list[Callback] = [monitor, ours] if monitor_first else [ours, monitor]
    trainer = fit(Collapse(*ALWAYS), *pair)
    assert trainer.current_epoch == patience
    assert ours.stopped_epoch == patience - 1
    assert ours.stopping_reason is SpectralStoppingReason.TRIGGER
    times = "1 measurement" if patience == 1 else f"{patience} measurements in a row"
    assert ours.stopping_reason_message == (
        f"`SpectralEarlyStopping`: `rank_collapse` fired at {times}, the last at step {6 * patience}, in `hidden`."
    )


def test_a_measurement_that_does_not_fire_starts_the_count_anew() -> None:
    ours = stopping(patience=3)
    trainer = fit(WeightSpectrumMonitor(), ours, Collapse(0, 1, 3, 4, 5))
    assert trainer.current_epoch == 6


def test_min_epochs_holds_the_stop_back() -> None:
    assert fit(WeightSpectrumMonitor(), stopping(patience=1, min_epochs=4), Collapse(*ALWAYS)).current_epoch == 4
    released = fit(WeightSpectrumMonitor(), stopping(patience=1, min_epochs=4), Collapse(0, 1))
    assert released.current_epoch == 8  # what was flagged before the minimum, and is no longer, does not stop


def test_the_trainers_own_minimum_is_waited_for() -> None:
    trainer = fit(WeightSpectrumMonitor(), stopping(patience=1), Collapse(*ALWAYS), min_epochs=3)
    assert trainer.current_epoch == 3
    trainer = fit(WeightSpectrumMonitor(), stopping(patience=1), Collapse(0), min_epochs=3)
    assert trainer.current_epoch == 8  # a stop that was set before the minimum would be remembered


def test_nonfinite_acts_at_once() -> None:
    class Lose(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            with torch.no_grad():
                pl_module.head.weight.fill_(float("nan"))  # type: ignore[union-attr,operator]

    ours = SpectralEarlyStopping("nonfinite")
    assert fit(Lose(), WeightSpectrumMonitor(), ours).current_epoch == 1
    assert ours.stopping_reason is SpectralStoppingReason.NONFINITE


def collapsed_from_the_start() -> Still:
    model = Still()
    with torch.no_grad():
        model.hidden.weight[:] = 0
        model.hidden.weight[:, 0] = 1.0
    return model


def test_what_stands_from_the_start_neither_stops_nor_warns_until_it_comes_back() -> None:
    monitor, ours = WeightSpectrumMonitor(), stopping(patience=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*rank_collapse")
        assert fit(monitor, ours, model=collapsed_from_the_start()).current_epoch == 8
    assert [past.flags for past in monitor.history] == [{}] * 9
    assert all(past.from_start == {"rank_collapse": ("hidden",)} for past in monitor.history)
    assert monitor.history[-1].summary["num_flagged"] == 0
    with pytest.warns(UserWarning, match="`rank_collapse` at layer `hidden`"):
        trainer = fit(
            WeightSpectrumMonitor(), stopping(patience=1), Collapse(0, 1, 3), model=collapsed_from_the_start()
        )
    assert trainer.current_epoch == 4


@pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:.*`rank_collapse` at layer")
def test_a_resumed_run_knows_what_stood_from_the_start_and_stops_at_the_same_measurement(tmp_path: Path) -> None:
    def go(folder: str, epochs: int, ckpt: Path | None = None) -> tuple[Trainer, WeightSpectrumMonitor]:
        monitor = WeightSpectrumMonitor()
        saving = ModelCheckpoint(tmp_path / folder, save_last=True)
        ours: list[Callback] = [Collapse(0, 1, 2, 4, 5, 6), monitor, stopping(patience=2), saving]
        trainer = quiet_trainer(callbacks=ours, max_epochs=epochs, enable_checkpointing=True)
        trainer.fit(collapsed_from_the_start(), data(), data(32, seed=1, shuffle=False), ckpt_path=ckpt)
        return trainer, monitor

    whole, monitor = go("whole", 9)
    assert whole.current_epoch == 6
    assert [bool(past.from_start) for past in monitor.history] == [True] * 4 + [False] * 3
    for cut in (2, 5):
        go(f"first{cut}", cut)
        resumed, again = go(f"second{cut}", 9, tmp_path / f"first{cut}" / "last.ckpt")
        assert resumed.current_epoch == 6
        assert [past.from_start for past in again.history] == [past.from_start for past in monitor.history]
        assert [past.flags for past in again.history] == [past.flags for past in monitor.history]


def test_step_schedules_stop_within_the_epoch() -> None:
    monitor = WeightSpectrumMonitor(every_n_epochs=None, every_n_train_steps=2)
    trainer = fit(monitor, stopping(patience=2), Collapse(*ALWAYS))
    assert trainer.global_step == 5  # measured at 2 and 4, acted upon at the next batch


def test_without_triggers_it_only_reports(caplog: pytest.LogCaptureFixture) -> None:
    ours = SpectralEarlyStopping()
    with caplog.at_level(logging.INFO):
        assert fit(WeightSpectrumMonitor(), ours, Collapse(*ALWAYS)).current_epoch == 8
    said = [record.message for record in caplog.records if "SpectralEarlyStopping" in record.message]
    assert said == [
        "`SpectralEarlyStopping`: `rank_collapse` fired at 5 measurements in a row, the last at step 30, in `hidden`. "
        "Training goes on: `stop_on` is empty."
    ]
    assert ours.stopping_reason is SpectralStoppingReason.NOT_STOPPED
    assert (ours.stopped_epoch, ours.stopping_reason_message) == (-1, None)


def test_fast_dev_run_never_stops() -> None:
    ours = stopping(patience=1)
    trainer = fit(WeightSpectrumMonitor(every_n_train_steps=1), ours, Collapse(*ALWAYS), fast_dev_run=3)
    assert trainer.global_step == 3
    assert ours.stopped_epoch == -1


def test_a_sanity_check_does_not_count() -> None:
    trainer = fit(WeightSpectrumMonitor(), stopping(patience=2), Collapse(*ALWAYS), num_sanity_val_steps=2)
    assert trainer.current_epoch == 2


def test_a_stop_within_an_epoch_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    monitor = WeightSpectrumMonitor(every_n_epochs=None, every_n_train_steps=2)
    with caplog.at_level(logging.INFO):
        fit(monitor, stopping(patience=2), Collapse(*ALWAYS))
    assert len([record for record in caplog.records if "`rank_collapse` fired" in record.message]) == 1


def test_any_of_several_monitors_counts() -> None:
    healthy = WeightSpectrumMonitor(layers="head", log_key_prefix="a/")
    ours = stopping(patience=2)
    assert fit(healthy, WeightSpectrumMonitor(layers="hidden"), ours, Collapse(*ALWAYS)).current_epoch == 2


def test_patience_and_counters_survive_a_resume(tmp_path: Path) -> None:
    def go(epochs: int, ckpt: str | None) -> tuple[Trainer, SpectralEarlyStopping]:
        ours = stopping(patience=3)
        checkpoint = ModelCheckpoint(tmp_path, save_last=True)
        trainer = quiet_trainer(
            callbacks=[WeightSpectrumMonitor(), ours, Collapse(*ALWAYS), checkpoint],
            max_epochs=epochs,
            enable_checkpointing=True,
            default_root_dir=str(tmp_path),
        )
        trainer.fit(Still(), data(), data(32, seed=1, shuffle=False), ckpt_path=ckpt)
        return trainer, ours

    go(2, None)
    trainer, ours = go(8, str(tmp_path / "last.ckpt"))
    assert trainer.current_epoch == 3  # two before, one after; the measurement at the resumed step is not counted again
    assert ours.stopping_reason_message is not None
    assert "fired at 3 measurements in a row, the last at step 18" in ours.stopping_reason_message


def test_counts_begin_anew_with_a_monitor_whose_history_another_version_wrote(tmp_path: Path) -> None:
    def go(epochs: int, ckpt: Path | None, *collapsed: int) -> Trainer:
        saving = ModelCheckpoint(tmp_path, save_last=True)
        pair = (WeightSpectrumMonitor(), stopping(patience=2))
        ours: list[Callback] = [Collapse(*collapsed), *pair, saving]
        trainer = quiet_trainer(callbacks=ours, max_epochs=epochs, enable_checkpointing=True)
        trainer.fit(Still(), data(), data(32, seed=1, shuffle=False), ckpt_path=ckpt)
        return trainer

    go(5, None, 4)
    file = tmp_path / "last.ckpt"
    state = torch.load(file, weights_only=True)
    for key, ours in state["callbacks"].items():
        if key.startswith("WeightSpectrumMonitor"):
            ours["form"] = 1
    torch.save(state, file)
    with pytest.warns(UserWarning, match="which another version wrote, and starts a new history"):
        assert go(9, file, 6, 7).current_epoch == 8  # two flagged measurements, and none from before


def test_a_callback_used_for_another_run_begins_anew() -> None:
    ours = stopping(patience=2)
    for _ in range(2):
        assert fit(WeightSpectrumMonitor(), ours, Collapse(*ALWAYS)).current_epoch == 2


def test_it_says_why_it_stops_if_asked_to(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        fit(WeightSpectrumMonitor(), stopping(patience=1, verbose=False), Collapse(*ALWAYS))
        assert "`rank_collapse` fired" not in caplog.text
        fit(WeightSpectrumMonitor(), stopping(patience=1), Collapse(*ALWAYS))
        assert "`SpectralEarlyStopping`: `rank_collapse` fired at 1 measurement, the last at step 6" in caplog.text


def test_a_monitor_without_triggers_is_not_taken_for_none() -> None:
    message = (
        "`SpectralEarlyStopping` acts on the flags of a monitor, and no monitor of this Trainer has triggers: give "
        "it `triggers=[...]`, or add `WeightSpectrumMonitor()` to `Trainer(callbacks=[...])`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(WeightSpectrumMonitor(triggers=[]), stopping())


def test_without_a_monitor_it_says_which_to_add() -> None:
    message = (
        "`SpectralEarlyStopping` acts on the flags of a monitor, and this Trainer has none: add `WeightSpectrumMonitor()` "
        "to `Trainer(callbacks=[...])`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(stopping())


@pytest.mark.parametrize(
    ("monitor", "trigger", "raised"),
    [
        ({}, "rank_colapse", "nonfinite, rank_collapse, correlation_trap"),
        ({"shuffle": "off"}, "rank_collapse", "nonfinite"),
    ],
)
def test_a_trigger_that_nothing_raises_is_an_error(monitor: dict[str, Any], trigger: str, raised: str) -> None:
    message = (
        f"`SpectralEarlyStopping(stop_on=['{trigger}'])`: no monitor of this Trainer raises it. Raised are: {raised}. "
        "By name there are also: over_trained, under_trained, not_learning, sharpness, plateau, instability, "
        "vanishing_gradients, exploding_gradients."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(WeightSpectrumMonitor(**monitor), stopping(stop_on=[trigger]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, "`SpectralEarlyStopping(patience=0)`: expected an integer of at least 1."),
        ({"min_epochs": -1}, "`SpectralEarlyStopping(min_epochs=-1)`: expected an integer of at least 0."),
        (
            {"stop_on": ["rank_collapse", 3]},
            "`SpectralEarlyStopping(stop_on=['rank_collapse', 3])`: expected a trigger, its name, or a list of those.",
        ),
        ({"patience": 1.5}, "`SpectralEarlyStopping(patience=1.5)`: expected an integer of at least 1."),
    ],
)
def test_arguments_out_of_their_domain(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SpectralEarlyStopping(**arguments)


class Scored(Still):
    """Logs a score of each epoch."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = scores

    def on_validation_epoch_end(self) -> None:
        self.log("score", self.scores[min(self.current_epoch, len(self.scores) - 1)])


@pytest.mark.parametrize(
    ("scores", "options", "epochs"),
    [
        ((5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.4, 0.3), {}, 8),  # still better: it goes on
        ((5.0, 4.0, 4.0, 4.0), {}, 4),
        ((5.0, 4.0, 3.0, 2.0), {"mode": "max"}, 3),
        ((5.0, 4.9, 4.8, 4.7), {"min_delta": 1.0}, 3),
        ((float("nan"),), {}, 2),
    ],
)
def test_a_required_metric_has_to_be_stale_as_long_as_the_trigger_fires(
    scores: Any, options: dict[str, Any], epochs: int
) -> None:
    ours = stopping(patience=2, require_metric="score", **options)
    assert fit(WeightSpectrumMonitor(), ours, Collapse(*ALWAYS), model=Scored(*scores)).current_epoch == epochs
    if epochs == 4:
        assert "in `hidden`. `score` was not better than 4 at 2 measurements." in str(ours.stopping_reason_message)


def test_without_the_required_metric_there_is_one_warning_and_no_stop() -> None:
    with pytest.warns(UserWarning, match="finds no `scores`, and without it only `nonfinite` stops") as caught:
        trainer = fit(WeightSpectrumMonitor(), stopping(require_metric="scores"), Collapse(*ALWAYS), model=Scored(1.0))
    assert trainer.current_epoch == 8
    assert len([one for one in caught if "finds no" in str(one.message)]) == 1


@pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:.*`rank_collapse` at layer")
def test_a_resumed_run_knows_the_best_value_of_the_required_metric(tmp_path: Path) -> None:
    def go(folder: str, epochs: int, ckpt: Path | None = None) -> int:
        saving = ModelCheckpoint(tmp_path / folder, save_last=True)
        ours = stopping(patience=2, require_metric="score")
        pair: list[Callback] = [Collapse(*ALWAYS), WeightSpectrumMonitor(), ours, saving]
        trainer = quiet_trainer(callbacks=pair, max_epochs=epochs, enable_checkpointing=True)
        model = Scored(5.0, 4.0, 3.0, 3.5, 3.2, 3.1)
        trainer.fit(model, data(), data(32, seed=1, shuffle=False), ckpt_path=ckpt)
        return int(trainer.current_epoch)

    assert go("whole", 9) == 5
    go("first", 4)
    assert go("second", 9, tmp_path / "first" / "last.ckpt") == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"require_metric": 3}, "require_metric=3"),
        ({"require_metric": ""}, "require_metric=''"),
        ({"mode": "auto"}, "mode='auto'"),
        ({"min_delta": -1.0}, "min_delta=-1.0"),
    ],
)
def test_unfit_requirements_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"`SpectralEarlyStopping({said})`")):
        stopping(**options)
