"""Numbers from the background are those of the training process, and none is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers.beside import at_once, children
from helpers.networks import Classifier, data, quiet_trainer
from helpers.reports import TIMES
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from lightning_ww._errors import ArgumentError
from lightning_ww.callbacks import CurvatureMonitor, SpectralEarlyStopping, WeightSpectrumMonitor
from lightning_ww.callbacks._monitor import worker


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch)


class Mixed(Classifier):
    """Has a frozen layer, one in 16 bits, and one that is unfit."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(40, 30).requires_grad_(False)
        self.sixteen = nn.Linear(20, 20).bfloat16()
        self.small = nn.Linear(2, 2)
        self.wide = nn.Linear(150, 140)  # so large that its shuffle is kept

    def on_train_epoch_start(self) -> None:
        with torch.no_grad():
            self.sixteen.weight.mul_(1.5)
            self.wide.weight.add_(1e-3 * self.wide.weight.flip(0))


class Growing(Mixed):
    """Has another layer from the third epoch on."""

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.current_epoch == 2:
            self.late = nn.Linear(16, 16)


def fit(monitor: Any, *others: Callback, model: type[LightningModule] = Mixed, **options: Any) -> Trainer:
    torch.manual_seed(0)
    trainer = quiet_trainer(callbacks=[monitor, *others], **({"max_epochs": 4} | options))
    trainer.fit(model(), data(), data(16, shuffle=False))
    return trainer


def numbers(monitor: WeightSpectrumMonitor) -> list[Any]:
    """All that was measured, apart from the time it took."""
    return [
        (
            past.moment,
            {name: value for name, value in past.summary.items() if name not in TIMES},
            past.layers,
            past.values.numpy().tobytes(),
            past.flags,
            past.fired,
        )
        for past in monitor.history
    ]


class Waiting(Callback):
    """Waits until the process has answered, so that numbers are published at the next step; or for its start only."""

    def __init__(self, *, for_start_only: bool = False) -> None:
        self.epochs = 1 if for_start_only else 1000

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        monitor: Any = trainer.callbacks[0]  # type: ignore[attr-defined]
        pending = monitor._run.pending
        if trainer.current_epoch >= self.epochs:
            return
        if pending is not None and pending.future is not None and batch_idx == 2:
            pending.future.exception()
            assert pending.is_done


@pytest.mark.parametrize(
    "others", [(Waiting(for_start_only=True),), (Waiting(),)], ids=["joined at the next one", "joined at a step"]
)
def test_numbers_are_the_same_to_the_bit_and_at_the_same_steps(others: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"metrics": "all", "on_error": "raise"}
    here, beside = (WeightSpectrumMonitor(execution=kind, **options) for kind in ("sync", "background"))
    before = children()
    loggers = [CSVLogger(str(tmp_path), name=name, version="") for name in "ab"]
    pairs = zip((here, beside), loggers, strict=True)
    trainers = [fit(monitor, *others, logger=logger, model=Growing) for monitor, logger in pairs]
    assert numbers(beside) == numbers(here)
    assert len(here.history) == 5
    assert {"sixteen", "frozen", "late"} <= set(here.history[-1].layers)
    assert here.report is not None
    assert beside.report is not None
    assert here.report["wide"].shuffle == beside.report["wide"].shuffle == "kept"
    assert children() == before
    ends = [
        {key: value for key, value in trainer.callback_metrics.items() if key.rpartition("/")[2] not in TIMES}
        for trainer in trainers
    ]
    assert ends[0] == ends[1]
    rows = [
        {line.split(",")[0] for line in (tmp_path / name / "metrics.csv").read_text().splitlines()} for name in "ab"
    ]
    assert rows[0] == rows[1]


def test_without_a_core_to_spare_numbers_are_found_here(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_ww.callbacks._monitor import beside

    monkeypatch.setattr(beside, "usable_cores", lambda: 1)
    here, there = (WeightSpectrumMonitor(execution=kind) for kind in ("sync", "background"))
    for monitor in (here, there):
        fit(monitor)
    assert numbers(there) == numbers(here)


def test_a_process_that_is_still_starting_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PROGRAM", "import time; time.sleep(1000)")
    here, beside = (WeightSpectrumMonitor(execution=kind) for kind in ("sync", "background"))
    began = time.monotonic()
    for monitor in (here, beside):
        fit(monitor)
    assert time.monotonic() - began < 60
    assert numbers(beside) == numbers(here)


def test_a_process_that_draws_is_not_waited_for() -> None:
    class Busy(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.worker = cast(Any, trainer).callbacks[0]._run.worker
            if trainer.current_epoch == 1:
                self.worker.submit(time.sleep, 1000)

    here, beside = (WeightSpectrumMonitor(execution=kind) for kind in ("sync", "background"))
    began = time.monotonic()
    for monitor in (here, beside):
        fit(monitor, Busy() if monitor is beside else Callback(), Waiting(for_start_only=True))
    assert time.monotonic() - began < 60
    assert numbers(beside) == numbers(here)


def test_a_process_that_is_killed_costs_one_warning_and_no_number(caplog: pytest.LogCaptureFixture) -> None:
    class Killing(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            worker = trainer.callbacks[0]._run.worker
            if trainer.current_epoch == 2:
                worker.submit(int).result()
                os.kill(worker.process_id, signal.SIGKILL)

    here, beside = (WeightSpectrumMonitor(execution=kind) for kind in ("sync", "background"))
    fit(here)
    fit(beside, Killing())
    assert numbers(beside) == numbers(here)
    assert caplog.text.count("measures in the training process from now on, since the process beside it has ended") == 1


class Failing(Callback):
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 2 and batch_idx == 0:
            raise self.error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_end_by_an_error_loses_no_number_and_leaves_nothing_behind(error: type[BaseException]) -> None:
    monitor, before = WeightSpectrumMonitor(execution="background", on_error="raise"), children()
    with pytest.raises((ValueError, SystemExit, KeyboardInterrupt)):
        fit(monitor, Failing(error))
    assert [past.step for past in monitor.history] == [0, 6, 12]
    assert children() == before
    assert monitor._run.pending is None


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`", "ignore:You're resuming from a checkpoint")
def test_a_checkpoint_has_all_that_was_measured_before_it_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    def keeping(folder: Path) -> ModelCheckpoint:
        return ModelCheckpoint(folder, every_n_train_steps=13, save_top_k=-1, filename="{step}")

    def saved(kind: Any, folder: Path) -> tuple[WeightSpectrumMonitor, dict[str, Any]]:
        monitor = WeightSpectrumMonitor(execution=kind)
        fit(monitor, keeping(folder), enable_checkpointing=True, max_epochs=3)
        return monitor, torch.load(folder / "step=13.ckpt", weights_only=False)["callbacks"]

    here, of_here = saved("sync", tmp_path / "a")
    beside, of_beside = saved("background", tmp_path / "b")
    (key,) = (key for key in of_here if key.startswith("WeightSpectrumMonitor"))
    assert len(here.history) == 4
    resumed = []
    for folder, kind in (("a", "sync"), ("b", "background")):
        monitor = WeightSpectrumMonitor(execution=kind)  # type: ignore[arg-type]
        trainer = quiet_trainer(callbacks=[monitor], max_epochs=3)
        trainer.fit(
            Mixed(), data(), data(16, shuffle=False), ckpt_path=tmp_path / folder / "step=13.ckpt", weights_only=False
        )
        resumed.append([past.step for past in monitor.history])
    assert resumed[0] == resumed[1]
    assert resumed[0][:3] == [0, 6, 12]
    assert key in of_beside
    assert numbers(here)[:3] == numbers(beside)[:3]


class Plateau(Classifier):
    """Lowers its rate by one of our numbers."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "ww/alpha", "strict": False},
        }


WATCHERS: dict[str, tuple[Callable[[Path], list[Any]], type[LightningModule], str]] = {
    "stop": (lambda _: [EarlyStopping("ww/alpha")], Classifier, "`EarlyStopping(monitor='ww/alpha')`"),
    "checkpoint": (
        lambda folder: [ModelCheckpoint(folder, monitor="ww/sv_min")],
        Classifier,
        "`ModelCheckpoint(monitor='ww/sv_min')`",
    ),
    "file name": (
        lambda folder: [ModelCheckpoint(folder, filename="{epoch}-{ww/alpha:.2f}")],
        Classifier,
        "`ModelCheckpoint(filename='{epoch}-{ww/alpha:.2f}')`",
    ),
    "schedule": (lambda _: [], Plateau, "the monitor 'ww/alpha' of a `ReduceLROnPlateau`"),
}


@pytest.mark.parametrize("kind", WATCHERS)
def test_what_reads_a_number_in_its_epoch_is_named_before_training(kind: str, tmp_path: Path) -> None:
    make, model, named = WATCHERS[kind]
    with pytest.raises(ArgumentError) as caught:
        fit(WeightSpectrumMonitor(execution="background"), *make(tmp_path), model=model, enable_checkpointing=True)
    assert str(caught.value) == (
        f"`WeightSpectrumMonitor(execution='background')`: {named} reads a number in its epoch, and in the background "
        "numbers come later. Leave out `execution`, or let it watch another number."
    )


def test_what_watches_other_numbers_or_another_monitor_is_no_hindrance(tmp_path: Path) -> None:
    monitor = WeightSpectrumMonitor(execution="background", log_key_prefix="a/", on_error="raise")
    curvature = CurvatureMonitor(every_n_epochs=1, num_steps=3, execution="background", on_error="raise")
    watching = EarlyStopping("curvature/sharpness", strict=False)
    fit(monitor, curvature, watching, ModelCheckpoint(tmp_path, filename="{val_loss}"), enable_checkpointing=True)
    assert len(monitor.history) == 5
    assert len(curvature.history) >= 2


class Zeroed(Classifier):
    def on_train_epoch_start(self) -> None:
        if self.current_epoch >= 1:
            with torch.no_grad():
                self.head.weight[1:] = 0

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_a_stop_names_the_step_that_its_numbers_are_of() -> None:
    monitor = WeightSpectrumMonitor(execution="background")
    stop = SpectralEarlyStopping(stop_on=["rank_collapse"], patience=2, min_epochs=1)
    trainer = fit(monitor, stop, model=Zeroed, max_epochs=9)
    assert stop.stopping_reason_message is not None
    assert "the last at step 18" in stop.stopping_reason_message
    assert 18 < trainer.global_step <= 24
