"""What follows a flag: the user's own function, a warning, an alert, and a line in `events.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.collapsing import Collapse, Still
from helpers.fits import fit
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger, Logger

from lightning_ww import Flag
from lightning_ww.callbacks import CurvatureMonitor, SpectralEarlyStopping, WeightSpectrumMonitor

pytestmark = pytest.mark.filterwarnings("ignore:.*`rank_collapse` at layer")


class Alerts(Logger):
    """A logger whose experiment takes alerts, as that of Weights & Biases does."""

    def __init__(self, method: str = "alert") -> None:
        super().__init__()
        self.sent: list[tuple[str, str]] = []
        self._method = method

    @property
    def name(self) -> str:
        return "alerts"

    @property
    def version(self) -> str:
        return "0"

    @property
    def experiment(self) -> Any:
        if self._method == "alert":
            return type("Run", (), {"alert": lambda _, title, text: self.sent.append((title, text))})()
        if self._method == "fails":
            return type("Run", (), {"alert": lambda _, title, text: 1 / 0})()
        notify = lambda _, title, status=None: self.sent.append((title, status))  # noqa: E731
        return type("Experiment", (), {"send_notification": notify})()

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        pass

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


def test_the_users_function_is_called_once_with_the_flags_that_have_risen() -> None:
    calls: list[Any] = []

    def keep(trainer: Trainer, pl_module: LightningModule, flags: tuple[Flag, ...]) -> None:
        calls.append((trainer.current_epoch, pl_module, flags))

    monitor = WeightSpectrumMonitor(on_flag=keep, on_error="raise")
    trainer = fit(monitor, Collapse(1, 2, 3, 4, 5), model=Still(), max_epochs=4)
    [(epoch, module, (flag,))] = calls
    assert (epoch, module, flag.trigger, flag.layer) == (1, trainer.lightning_module, "rank_collapse", "hidden")
    assert all([flag.evidence, flag.meaning, flag.lever])


def test_it_may_cut_the_learning_rate_save_a_checkpoint_and_stop(tmp_path: Path) -> None:
    def act(trainer: Trainer, pl_module: LightningModule, flags: tuple[Flag, ...]) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] *= 0.1
        trainer.save_checkpoint(tmp_path / "flagged.ckpt")
        trainer.should_stop = True

    monitor = WeightSpectrumMonitor(on_flag=act, on_error="raise")
    trainer = fit(monitor, Collapse(1, 2, 3, 4, 5), model=Still(), max_epochs=5, default_root_dir=str(tmp_path))
    assert trainer.current_epoch == 2
    state = torch.load(tmp_path / "flagged.ckpt", weights_only=True)["callbacks"][monitor.state_key]
    assert len(state["events"]) == 1  # the flag is in the checkpoint that it caused
    again = WeightSpectrumMonitor()
    fit(again, model=Still(), max_epochs=3, ckpt_path=tmp_path / "flagged.ckpt")
    assert "rank_collapse" in again.history[2].flags


def test_an_error_in_it_is_a_warning_and_the_run_goes_on() -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no such channel")

    with pytest.warns(UserWarning, match=r"could not call `on_flag` at step \d+ \(ValueError: no such channel\)"):
        trainer = fit(WeightSpectrumMonitor(on_flag=fail), Collapse(1, 2, 3, 4, 5), model=Still(), max_epochs=3)
    assert trainer.current_epoch == 3
    with pytest.raises(ValueError, match="no such channel"):
        fit(WeightSpectrumMonitor(on_flag=fail, on_error="raise"), Collapse(1, 2, 3, 4, 5), model=Still(), max_epochs=3)


def test_one_that_is_no_function_is_refused() -> None:
    for monitor in (WeightSpectrumMonitor, CurvatureMonitor):
        with pytest.raises(ValueError, match="on_flag"):
            monitor(on_flag="save")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["alert", "send_notification"])
def test_loggers_that_take_alerts_get_one_for_the_flag_and_one_for_the_stop(method: str) -> None:
    logger = Alerts(method)
    fit(
        WeightSpectrumMonitor(on_error="raise"),
        Collapse(1, 2, 3),
        SpectralEarlyStopping("rank_collapse", patience=2, min_epochs=0),
        model=Still(),
        max_epochs=9,
        logger=logger,
    )
    (flagged, why), (stopped, reason) = logger.sent
    assert (flagged, stopped) == ("lightning-ww: rank_collapse", "lightning-ww stops: rank_collapse")
    assert "at step" in why
    assert "rank_deficit" in why
    assert "fired at 2 measurements in a row" in reason


def test_an_alert_that_fails_costs_the_run_nothing() -> None:
    with pytest.warns(UserWarning, match="could not log to Alerts"):
        trainer = fit(
            WeightSpectrumMonitor(), Collapse(1, 2, 3, 4, 5), model=Still(), max_epochs=3, logger=Alerts("fails")
        )
    assert trainer.current_epoch == 3


def test_the_file_has_a_line_for_the_flag_and_one_for_the_stop(tmp_path: Path) -> None:
    fit(
        WeightSpectrumMonitor(on_error="raise"),
        Collapse(1, 2, 3),
        SpectralEarlyStopping("rank_collapse", patience=2, min_epochs=0),
        model=Still(),
        max_epochs=9,
        logger=CSVLogger(tmp_path, "", ""),
    )
    flag, stop = (json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines())
    assert list(flag) == ["time", "run", "event", "step", "epoch", "trigger", "layer", "evidence", "meaning", "lever"]
    assert list(stop) == [*flag, "layers"]
    assert stop["layers"] == ["hidden"]
    assert [flag[k] for k in ("event", "epoch", "trigger", "layer")] == ["flag", 1, "rank_collapse", "hidden"]
    assert [stop[k] for k in ("event", "epoch", "trigger", "layer")] == ["stop", 2, "rank_collapse", "hidden"]
    assert flag["evidence"].startswith("rank_deficit")
    assert "fired at 2 measurements" in stop["evidence"]
    assert "`hidden`. rank_deficit" in stop["evidence"]
