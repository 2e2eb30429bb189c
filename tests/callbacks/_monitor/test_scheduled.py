"""What a monitor does in which of Lightning's hooks."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.fits import fit
from helpers.networks import Classifier
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_ww.callbacks import CurvatureMonitor, WeightSpectrumMonitor
from lightning_ww.callbacks._monitor.guard import RefusedError


class Order(Callback):
    """Writes down the hooks, and how much each monitor had measured in them."""

    def __init__(self, *monitors: Any) -> None:
        self.monitors, self.seen = monitors, list[tuple[Any, ...]]()

    def _write(self, hook: str) -> None:
        self.seen.append((hook, *(len(one.history) for one in self.monitors)))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write("start")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._write("batch")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write("epoch")


def test_weights_are_measured_at_the_start_and_curvature_on_the_first_batch() -> None:
    weights, curvature = WeightSpectrumMonitor(), CurvatureMonitor(every_n_epochs=1, num_steps=2)
    order = Order(weights, curvature)
    fit(weights, curvature, order, max_epochs=1, limit_train_batches=2)
    assert order.seen == [("start", 1, 0), ("batch", 1, 1), ("batch", 1, 1), ("epoch", 2, 2)]


def test_a_monitor_that_refuses_is_off_for_good_and_says_so_once() -> None:
    tried = []

    class Refusing(WeightSpectrumMonitor):
        def _snapshot(self, trainer: Trainer, pl_module: LightningModule) -> Any:
            tried.append(trainer.global_step)
            raise RefusedError("Not here")

    message = "`Refusing` cannot measure in this run, and stops trying. Not here."
    with pytest.warns(UserWarning, match=message) as caught:
        trainer = fit(Refusing(), max_epochs=3)
    assert len([w for w in caught if "Refusing" in str(w.message)]) == 1
    assert tried == [0]
    assert trainer.global_step == 18
    with pytest.raises(RefusedError, match="Not here"):
        fit(Refusing(on_error="raise"))


def test_what_is_refused_before_training_costs_nothing_but_itself() -> None:
    class Refusing(CurvatureMonitor):
        def _prepare(self, *arguments: Any) -> None:
            raise RefusedError("Not under this strategy")

    monitor = Refusing(sharpness_every_n_steps=1)
    with pytest.warns(UserWarning, match="Not under this strategy"):
        trainer = fit(monitor, model=Classifier())
    assert trainer.global_step == 12
    assert not len(monitor.history)
