"""Flags on real training: scikit-learn's digits, healthy and over-regularized."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from helpers.networks import quiet_trainer
from pytorch_lightning import Callback, LightningModule, Trainer
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ww import Instability, NotLearning, OverTrained, Trigger, UnderTrained
from lightning_ww.callbacks import (
    CurvatureMonitor,
    SpectralEarlyStopping,
    SpectralStoppingReason,
    WeightSpectrumMonitor,
)

INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "raw": lambda x: x / 16,
    "centered": lambda x: x / 16 - (x / 16).mean(0),
    "standardized": lambda x: (x - x.mean(0)) / (x.std(0) + 1e-3),
}

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=3e-2),
    "strong decay": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, weight_decay=1.0),
    "decay": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.1),
    "slow": lambda parameters: torch.optim.SGD(parameters, lr=3e-3, momentum=0.9),
    "tiny steps": lambda parameters: torch.optim.SGD(parameters, lr=1e-7),
}


class Digits(LightningModule):
    """A perceptron 64 – 256 – 128 – 10; ``l2`` times the squared weights of the middle layer is added to its loss."""

    def __init__(self, optimizer: str, l2: float = 0.0) -> None:
        super().__init__()
        self.optimizer, self.l2 = optimizer, l2
        self.encoder, self.middle, self.head = nn.Linear(64, 256), nn.Linear(256, 128), nn.Linear(128, 10)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        hidden = torch.relu(self.middle(torch.relu(self.encoder(batch[0]))))
        loss = nn.functional.cross_entropy(self.head(hidden), batch[1])
        return loss + self.l2 * self.middle.weight.square().sum() if self.l2 else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return OPTIMIZERS[self.optimizer](self.parameters())


def train(
    model: Digits, epochs: int, *callbacks: Callback, inputs: str = "raw", triggers: Sequence[Trigger] | None = None
) -> tuple[Trainer, WeightSpectrumMonitor]:
    x, y = load_digits(return_X_y=True)
    data = TensorDataset(INPUTS[inputs](torch.tensor(x, dtype=torch.float32)), torch.tensor(y))
    monitor = WeightSpectrumMonitor(on_error="raise", triggers=triggers)
    trainer = quiet_trainer(max_epochs=epochs, callbacks=[monitor, *callbacks])
    trainer.fit(model, DataLoader(data, batch_size=32, shuffle=True))
    return trainer, monitor


def flags(monitor: WeightSpectrumMonitor) -> set[tuple[str, str]]:
    return {(trigger, layer) for past in monitor.history for trigger, names in past.flags.items() for layer in names}


def test_l2_on_one_layer_collapses_its_rank_within_ten_epochs_and_stops() -> None:
    stopping = SpectralEarlyStopping(stop_on=["rank_collapse", "correlation_trap"])
    with pytest.warns(UserWarning, match="`rank_collapse` at layer `middle`"):
        trainer, monitor = train(Digits("SGD", l2=3e-2), 10, stopping)
    assert flags(monitor) == {("rank_collapse", "middle")}
    assert trainer.current_epoch < 10
    assert stopping.stopping_reason is SpectralStoppingReason.TRIGGER
    assert "`rank_collapse`" in (stopping.stopping_reason_message or "")


def test_decoupled_weight_decay_of_the_same_size_does_not() -> None:
    _, monitor = train(Digits("AdamW"), 10)
    assert flags(monitor) == set()


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("inputs", INPUTS)
def test_thirty_healthy_epochs_raise_no_flag(optimizer: str, inputs: str) -> None:
    _, monitor = train(Digits(optimizer), 30, inputs=inputs)
    assert len(monitor.history) == 31
    assert flags(monitor) == set()


class Square(Digits):
    """A perceptron 64 – 256 – 256 – 10."""

    def __init__(self, optimizer: str) -> None:
        super().__init__(optimizer)
        self.middle, self.head = nn.Linear(256, 256), nn.Linear(256, 10)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "decay"])
@pytest.mark.parametrize("inputs", INPUTS)
def test_two_layers_of_each_of_nine_healthy_runs_show_nothing_without_their_mean(optimizer: str, inputs: str) -> None:
    torch.manual_seed(0)
    _, monitor = train(Square(optimizer), 30, inputs=inputs)
    assert flags(monitor) == set()
    for layer in ("encoder", "middle"):
        seen = [past.value(layer, "trap_z_centred") for past in monitor.history]
        assert max(z for z in seen if z is not None) < 3.27


class Plant(Callback):
    """Puts one element of ``size`` times the visibility threshold into a layer, once."""

    def __init__(self, size: float) -> None:
        self.size = size

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            weight: Tensor = pl_module.middle.weight  # type: ignore[assignment,union-attr]
            with torch.no_grad():
                weight[7, 5] = self.size * weight.std() * weight.numel() ** 0.25


def test_a_planted_weight_of_twice_the_visible_size_raises_correlation_trap() -> None:
    with pytest.warns(UserWarning, match="`correlation_trap` at layer `middle`"):
        _, monitor = train(Digits("SGD"), 3, Plant(2.0))
    assert flags(monitor) == {("correlation_trap", "middle")}
    assert ("correlation_trap" in monitor.history[1].flags, "correlation_trap" in monitor.history[2].flags) == (
        False,
        True,
    )
    assert monitor.history[-1].fired == ("correlation_trap",)  # one of the two eligible layers


class Wide(Digits):
    """Has a middle layer of 2048 × 64."""

    def __init__(self, optimizer: str) -> None:
        super().__init__(optimizer)
        self.encoder, self.middle, self.head = nn.Linear(64, 2048), nn.Linear(2048, 64), nn.Linear(64, 10)


class Ramped(Digits):
    """Its learning rate triples at each epoch from the third on."""

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 3.0 ** max(0, epoch - 2))]


@pytest.mark.filterwarnings("ignore:.*`(over_trained|under_trained|not_learning|instability)`")
@pytest.mark.parametrize(
    ("trigger", "raising", "silent", "epochs"),
    [
        (OverTrained(), (Digits, "strong decay"), (Digits, "SGD"), 5),
        (UnderTrained(), (Wide, "slow"), (Digits, "SGD"), 4),
        (NotLearning(), (Digits, "tiny steps"), (Digits, "SGD"), 5),
        (Instability(), (Ramped, "SGD"), (Digits, "SGD"), 6),
    ],
    ids=["over_trained", "under_trained", "not_learning", "instability"],
)
def test_a_trigger_is_raised_by_one_training_and_not_by_another(
    trigger: Trigger, raising: Any, silent: Any, epochs: int
) -> None:
    torch.manual_seed(0)
    for (network, optimizer), is_raised in ((raising, True), (silent, False)):
        _, monitor = train(network(optimizer), epochs, triggers=[trigger])
        assert ((trigger.name, "middle") in flags(monitor)) == is_raised


class Full(Digits):
    """Trains on all data at once by plain gradient descent."""

    def __init__(self, rate: float) -> None:
        super().__init__("SGD")
        self.rate = rate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


@pytest.mark.filterwarnings("ignore:.*`sharpness`")
@pytest.mark.parametrize(("rate", "is_raised"), [(3.0, True), (0.02, False)])
def test_steps_beyond_the_edge_of_stability_raise_sharpness_and_stop(rate: float, is_raised: bool) -> None:
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    data = TensorDataset(INPUTS["raw"](torch.tensor(x[:500], dtype=torch.float32)), torch.tensor(y[:500]))
    monitor = CurvatureMonitor(every_n_epochs=1, num_steps=8, on_error="raise")
    stopping = SpectralEarlyStopping("sharpness", patience=2, min_epochs=0)
    trainer = quiet_trainer(max_epochs=8, callbacks=[monitor, stopping])
    trainer.fit(Full(rate), DataLoader(data, batch_size=500))
    assert any("sharpness" in past.flags for past in monitor.history) == is_raised
    assert (trainer.current_epoch < 8) == is_raised


@pytest.mark.parametrize(("optimizer", "epochs", "is_raised"), [("SGD", 40, True), ("Adam", 20, False)])
def test_spectra_that_have_settled_raise_plateau_and_stop(optimizer: str, epochs: int, is_raised: bool) -> None:
    torch.manual_seed(0)
    stopping = SpectralEarlyStopping("plateau", patience=1)
    trainer, monitor = train(Digits(optimizer), epochs, stopping)
    assert any("plateau" in past.flags for past in monitor.history) == is_raised
    assert (trainer.current_epoch < epochs) == is_raised
