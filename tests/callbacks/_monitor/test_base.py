"""A monitor is four methods: here one that is not ours, with a trigger, and all that it gets for that."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.networks import Classifier, data, quiet_trainer
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from lightning_ww import History, Moment, Trigger
from lightning_ww.callbacks import CurvatureMonitor, SpectralEarlyStopping, WeightSpectrumMonitor
from lightning_ww.callbacks._monitor.base import Monitor
from lightning_ww.callbacks._monitor.view import Chart, Histogram, Picture, View


@dataclass(frozen=True)
class Norms:
    """What was found: the norm of each parameter."""

    values: Mapping[str, float]
    layers: tuple[Any, ...] = ()
    skipped: tuple[Any, ...] = ()

    @property
    def summary(self) -> Mapping[str, float]:
        """The largest of them."""
        return {"largest": max(self.values.values())}


class NormMonitor(Monitor[dict[str, Tensor], Norms]):
    """Watches the norms of a model's parameters."""

    GROUP = "norms"

    def __init__(self, every_n_epochs: int = 1, **more: Any) -> None:
        options: dict[str, Any] = {"triggers": None, "panels": True, "log_key_prefix": "", "on_error": "raise"}
        options |= {"seed": 0, "max_history": 100, "defaults": (), "measures": ["largest"]}
        super().__init__(every_n_epochs, None, **(options | more))

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, state: Mapping[str, Any] | None) -> None:
        pass

    def _snapshot(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in pl_module.named_parameters()}

    def _measure(self, snapshot: dict[str, Tensor], moment: Moment) -> Norms:
        return Norms({name: float(parameter.norm()) for name, parameter in snapshot.items()})

    def _view(self, measurement: Norms) -> View:
        values = np.array(list(measurement.values.values()))
        return View(
            scalars={f"norm/{name}": value for name, value in measurement.values.items()},
            histograms={"all": Histogram(values, np.linspace(0, 100, 11))},
            texts={"report": "| norms |"},
            pictures=[Picture("bars", lambda: np.zeros((2, 2, 3), dtype=np.uint8))],
            category="norms of parameters",
            charts=[Chart("largest", ("largest",))],
        )


@dataclass(frozen=True)
class Large(Trigger):
    """The largest norm exceeds a limit after the start."""

    enter: float = 0.0
    needs = ("largest",)

    def judge(self, history: History[Any], layer: str) -> str | None:
        largest = history[-1].summary["largest"]
        is_large = history[-1].step > 0 and largest > self.enter
        return f"largest norm {largest:.2f} (threshold {self.enter:g})" if is_large else None


def fit(*callbacks: Callback, **arguments: Any) -> Trainer:
    trainer = quiet_trainer(callbacks=list(callbacks), **arguments)
    trainer.fit(Classifier(), data(), data(16, shuffle=False))
    return trainer


def test_four_methods_make_a_monitor(tmp_path: Path) -> None:
    monitor = NormMonitor(triggers=[Large()], log_key_prefix="a/")
    with pytest.warns(UserWarning, match="`NormMonitor` at step 6: `large`: largest norm"):
        trainer = fit(monitor, logger=TensorBoardLogger(str(tmp_path), name="", version=""))
    assert [past.step for past in monitor.history] == [0, 6, 12]
    largest = max(float(p.detach().norm()) for p in trainer.lightning_module.parameters())
    assert monitor.history[-1].summary["largest"] == pytest.approx(largest)
    metrics = {key for key in trainer.callback_metrics if key.startswith("a/")}
    assert metrics == {f"a/norms/{name}" for name in ("largest", "num_flagged", "seconds", "overhead")}
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"a/norms/largest", "a/norms.norm/head.weight", "a/flags/large"} <= set(events.Tags()["scalars"])
    assert [event.value for event in events.Scalars("a/flags/large")] == [0.0, 1.0, 1.0]
    assert events.Tags()["histograms"] == ["a/norms/all"]
    assert events.Tags()["images"] == ["a/norms/bars"]
    assert "a/norms/report/text_summary" in events.Tags()["tensors"]
    assert (tmp_path / "lightning-ww").is_dir()
    assert pickle.loads(pickle.dumps(monitor)).history[-1].step == 12


def test_its_trigger_stops_like_ours() -> None:
    stopping = SpectralEarlyStopping(stop_on=["large"], patience=2, min_epochs=0)
    with pytest.warns(UserWarning, match="`large`"):
        trainer = fit(NormMonitor(triggers=[Large()]), stopping, max_epochs=9)
    assert trainer.current_epoch == 2
    message = "`SpectralEarlyStopping`: `large` fired at 2 measurements in a row, the last at step 12."
    assert stopping.stopping_reason_message == message


def test_a_trigger_sees_other_monitors_no_newer_than_its_step() -> None:
    seen: list[tuple[int, list[int]]] = []

    @dataclass(frozen=True)
    class Looking(Trigger):
        needs = ("largest",)

        def judge(self, history: History[Any], layer: str) -> str | None:
            seen.append((history[-1].step, [past.step for past in history.others["curvature"]]))
            return None

    fit(CurvatureMonitor(every_n_epochs=1, num_steps=2), NormMonitor(triggers=[Looking()]))
    assert seen == [(0, []), (6, [0, 6]), (12, [0, 6, 12])]


@pytest.mark.filterwarnings("ignore:.*`large`")
def test_a_trigger_that_fails_warns_once_and_costs_nothing_but_itself() -> None:
    @dataclass(frozen=True)
    class Broken(Trigger):
        def judge(self, history: History[Any], layer: str) -> str | None:
            raise ZeroDivisionError("no judge today")

    monitor = NormMonitor(triggers=[Broken(), Large()], on_error="warn")
    with pytest.warns(UserWarning, match="could not judge `broken` at step 0") as caught:
        fit(monitor)
    assert len([w for w in caught if "judge" in str(w.message)]) == 1
    assert [past.fired for past in monitor.history] == [(), ("large",), ("large",)]


def test_what_has_no_value_now_is_held_in_callback_metrics_alone(tmp_path: Path) -> None:
    class Fading(NormMonitor):
        def _measure(self, snapshot: dict[str, Tensor], moment: Moment) -> Any:
            return _Summary({"a": 1.0, "b": 2.0} if moment.number == 0 else {"a": 3.0})

        def _view(self, measurement: Any) -> View:
            return View()

    monitor = Fading()
    trainer = fit(monitor, logger=TensorBoardLogger(str(tmp_path), name="", version=""))
    assert {name: float(trainer.callback_metrics[f"norms/{name}"]) for name in "ab"} == {"a": 3.0, "b": 2.0}
    assert ["b" in past.summary for past in monitor.history] == [True, False, False]
    assert len(EventAccumulator(str(tmp_path)).Reload().Scalars("norms/b")) == 1


@dataclass(frozen=True)
class _Summary:
    summary: Mapping[str, float]
    layers: tuple[Any, ...] = ()
    skipped: tuple[Any, ...] = ()


def test_a_measurement_needs_nothing_but_its_arguments() -> None:
    """`_measure` of copied weights gives the same after training, without a Trainer, and for a monitor of other arguments."""
    taken: list[Any] = []

    class Keeping(WeightSpectrumMonitor):
        def _measure(self, snapshot: Any, moment: Moment) -> Any:
            report = super()._measure(snapshot, moment)
            taken.append((snapshot, moment, report))
            return report

        def _ask(self, worker: Any, snapshot: Any, moment: Moment) -> Any:
            return None  # no other process can measure, so that this one does

    monitor = Keeping(on_error="raise", execution="background")
    trainer = quiet_trainer(callbacks=[monitor], max_epochs=1)
    model = Classifier()
    trainer.fit(model, data(), data(16, shuffle=False))
    with torch.no_grad():
        model.head.weight.zero_()
    for snapshot, moment, report in taken:
        again = WeightSpectrumMonitor(metrics="all", shuffle="off", seed=1)._measure(snapshot, moment)
        assert again.layers == report.layers
    assert taken[0][2]["head"].sv_max != taken[1][2]["head"].sv_max
    assert torch.is_grad_enabled()
