"""`LearningCoefficientMonitor` in fits: when it measures, its keys, what it bears, and its numbers against the function's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fits import fit
from helpers.networks import Classifier, data, quiet_trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import IterableDataset

from lightning_ww.callbacks import LearningCoefficientMonitor
from lightning_ww.curvature import learning_coefficient

SUMMARY = {
    *("llc", "llc_stderr", "llc_drift", "llc_valid", "llc_quadratic", "loss", "step_size", "localization", "n_beta"),
    "num_samples",
    *("seconds", "overhead"),
}


def monitor(*arguments: Any, **options: Any) -> LearningCoefficientMonitor:
    small: dict[str, Any] = {"num_draws": 6, "num_burnin": 4, "num_chains": 2, "num_batches": 2, "on_error": "raise"}
    return LearningCoefficientMonitor(*arguments, **(small | options))


def test_it_measures_at_the_end_of_the_fit_and_every_few_epochs_if_asked() -> None:
    for every, last, epochs in ((None, 3, [3]), (2, 4, [1, 3]), (3, 4, [2, 4])):
        ours = monitor(every)
        fit(ours, max_epochs=last)
        assert [past.epoch for past in ours.history] == epochs
        assert not any(past.is_baseline for past in ours.history)


def test_keys_are_those_of_the_docstring(tmp_path: Path) -> None:
    logger = TensorBoardLogger(str(tmp_path))
    trainer = fit(monitor(), max_epochs=2, logger=logger)
    keys = {key.removeprefix("slt/") for key in trainer.callback_metrics if key.startswith("slt")}
    assert keys == SUMMARY
    assert all(torch.isfinite(value) for value in trainer.callback_metrics.values())
    assert all(f"slt/{key}``" in (LearningCoefficientMonitor.__doc__ or "") for key in SUMMARY)
    tags = EventAccumulator(str(logger.log_dir)).Reload().Tags()
    assert {f"slt/{key}" for key in SUMMARY} <= set(tags["scalars"])
    assert "slt/chains" in tags["images"]
    assert "slt/report/text_summary" in tags["tensors"]


def test_its_numbers_are_those_of_the_function_on_the_same_batches() -> None:
    batches = list(data(64, shuffle=False))

    def loss(net: Any, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(net(batch[0]), batch[1])

    ours, model = monitor(data=batches, num_batches=len(batches), num_samples=500, loss_fn=loss), Classifier()
    fit(ours, model=model, max_epochs=1)
    found = learning_coefficient(model, loss, batches, num_samples=500, num_draws=6, num_burnin=4, num_chains=2)
    assert ours.found is not None
    assert ours.found.value == pytest.approx(found.value, rel=1e-4)
    assert ours.found.loss == pytest.approx(found.loss, rel=1e-6)
    assert (ours.found.step_size, ours.found.n_beta) == pytest.approx((found.step_size, found.n_beta), rel=1e-4)


def test_a_longer_run_at_a_flat_minimum_has_less_than_half_the_parameters() -> None:
    model = Classifier(lr=0.05)
    ours = monitor(num_draws=200, num_burnin=400, num_batches=6, localization=30.0)
    fit(ours, model=model, max_epochs=60)
    assert ours.found is not None
    assert 0 < ours.found.value < sum(parameter.numel() for parameter in model.parameters()) / 2
    assert ours.found.is_valid, ours.found.reason


def test_a_resumed_run_keeps_its_history(tmp_path: Path) -> None:
    first = fit(monitor(1), max_epochs=2)
    first.save_checkpoint(tmp_path / "a.ckpt")
    ours = monitor(1)
    fit(ours, max_epochs=4, ckpt_path=tmp_path / "a.ckpt")
    assert [past.epoch for past in ours.history] == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore:You defined a .validation_step.")
def test_an_unknown_number_of_samples_is_one_warning_and_the_run_goes_on() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(
                [(x, y, torch.zeros(3)) for x, y in data(64, shuffle=False)]
            )  # tensors that disagree on the size

    class Streaming(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step((batch[0], batch[1]), batch_idx)

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(Stream(), batch_size=None)

    ours = LearningCoefficientMonitor(num_draws=2, num_burnin=1, num_batches=2)
    trainer = quiet_trainer(callbacks=[ours], max_epochs=2, limit_val_batches=0)
    with pytest.warns(UserWarning, match="Pass `num_samples=`") as caught:
        trainer.fit(Streaming())
    steps = [str(one.message).find("num_samples") for one in caught if "num_samples" in str(one.message)]
    assert len(steps) == 1  # before the first step
    assert trainer.current_epoch == 2
    assert ours.found is None


@pytest.mark.filterwarnings("ignore:.training_step. returned")
def test_a_batch_without_a_loss_is_left_out_with_one_warning() -> None:
    class Skipping(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx == 0 else super().training_step(batch, batch_idx)

    ours = LearningCoefficientMonitor(num_draws=2, num_burnin=1, num_batches=3)
    with pytest.warns(UserWarning, match="leaves out 1 of 3 batches"):
        fit(ours, model=Skipping(), max_epochs=1)
    assert ours.found is not None


def test_a_loss_by_hand_is_refused_before_the_first_step_and_a_short_run_is_short() -> None:
    class ByHand(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            optimizer: Any = self.optimizers()
            optimizer.step()

    with pytest.warns(UserWarning, match="optimizes by hand"):
        fit(LearningCoefficientMonitor(), model=ByHand(), max_epochs=1)
    ours = monitor(num_draws=10**6)
    fit(ours, fast_dev_run=True)
    assert ours.found is not None
    assert ours.found.draws.shape[1] == 2


@pytest.mark.parametrize(
    "options", [{"num_chains": 0}, {"num_draws": 0}, {"num_batches": 0}, {"num_samples": 1}, {"step_size": -1.0}]
)
def test_unfit_arguments_are_refused(options: dict[str, Any]) -> None:
    name = next(iter(options))
    with pytest.raises(ValueError, match=rf"LearningCoefficientMonitor\({name}="):
        LearningCoefficientMonitor(**options)
    with pytest.raises(ValueError, match="LearningCoefficientMonitor"):
        fit(LearningCoefficientMonitor(params="nothing"), max_epochs=1)
