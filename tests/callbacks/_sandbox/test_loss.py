"""A loss that can be evaluated in mid-run, or an error that says what to pass."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from helpers.measured import dense, fit
from helpers.networks import Batch, data, quiet_trainer
from helpers.tiny import Tiny
from pytorch_lightning import seed_everything
from torch.nn import functional

from lightning_ww.callbacks import CurvatureMonitor


class ByHand(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


def said(caplog: pytest.LogCaptureFixture) -> str:
    """The one warning of the monitor."""
    (message,) = [record.getMessage() for record in caplog.records if record.name == "lightning_ww"]
    return message


def test_manual_optimization_needs_a_loss(caplog: pytest.LogCaptureFixture) -> None:
    _, _, trainer = fit(ByHand(), on_error="warn")
    assert said(caplog) == (
        "`CurvatureMonitor` cannot measure in this run, and stops trying. This ByHand optimizes by hand "
        "(`automatic_optimization = False`), so its `training_step` moves the weights. Pass `loss_fn=`, `(pl_module, batch) "
        "-> loss`, or give the module a method `curvature_loss(batch)`."
    )
    assert trainer.global_step == 3
    useless = "`CurvatureMonitor(ggn_fn=...)` is of use with `matrix=\"ggn\"` only, but `matrix` is 'hessian'."
    with pytest.raises(ValueError, match=f"^{re.escape(useless)}$"):
        fit(ByHand(), on_error="warn", ggn_fn=lambda module, batch: None)
    monitor, batches, _ = fit(
        ByHand(), loss_fn=lambda module, batch: functional.cross_entropy(module(batch[0]), batch[1])
    )
    twin = Tiny().double()
    twin.load_state_dict(batches.seen[0][1].state_dict())
    assert monitor.history[0].density.sharpness == pytest.approx(float(dense(twin, batches.seen[0][0])[-1]), rel=1e-6)


class Clamping(Tiny):
    """Clamps its weights in its step, as critics do."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        for parameter in self.parameters():
            parameter.data.clamp_(-0.01, 0.01)
        return super().training_step(batch, batch_idx)


class Remembering(Tiny):
    """Holds its weights outside of its modules, too, and writes to them there."""

    def __init__(self) -> None:
        super().__init__()
        self.all: Any = lambda held=(self.hidden.weight,): held

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        with torch.no_grad():
            self.all()[0].mul_(0.5)
        return super().training_step(batch, batch_idx)


class Silent(Tiny):
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Clamping,
            "`training_step` changes the weights (`hidden.weight`), so its loss is that of other weights. Pass `loss_fn=`",
        ),
        (Remembering, "`training_step` changes the weights (`hidden.weight`), so its loss is that of other weights."),
        (
            Silent,
            "none of the first 6 batches could be measured. Of the first: `training_step`, in evaluation mode, returned "
            "`None`",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_step_that_is_no_loss_is_refused_and_the_run_is_as_without_us(
    model: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = []
    for monitors in ([CurvatureMonitor()], []):
        seed_everything(0)
        twin, trainer = model(), quiet_trainer(callbacks=list(monitors), max_epochs=1)
        trainer.fit(twin, data(), data(16, shuffle=False))
        found.append(twin.state_dict())
    assert message in said(caplog)
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_loss_that_needs_an_argument_is_refused_once_also_with_several_batches(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class ByHandLoss(Tiny):
        def training_step(self, batch: Batch, batch_idx: int) -> Any:
            return functional.l1_loss(self(batch[0]), torch.zeros(()).to(batch[0]))

    trainer = quiet_trainer(callbacks=[CurvatureMonitor(matrix="ggn", num_batches=3)], max_epochs=1)
    trainer.fit(ByHandLoss(), data(), data(16, shuffle=False))
    assert "Pass `ggn_fn=`" in said(caplog)
    assert trainer.global_step == 6


@pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor")
@pytest.mark.filterwarnings("ignore:Found `dataloader_iter` argument")
def test_a_step_that_draws_its_own_batches_needs_data_and_a_loss(caplog: pytest.LogCaptureFixture) -> None:
    class Drawing(Tiny):
        def training_step(self, dataloader_iter: Any) -> Any:  # type: ignore[override]
            batch, _, _ = next(dataloader_iter)
            return super().training_step(batch, 0)

    trainer = quiet_trainer(callbacks=[CurvatureMonitor()], max_epochs=1)
    trainer.fit(Drawing(), data(), data(16, shuffle=False))
    assert said(caplog) == (
        "`CurvatureMonitor` cannot measure in this run, and stops trying. This Drawing draws its batches itself "
        "(`dataloader_iter`). Pass `data=` and `loss_fn=`, `(pl_module, batch) -> loss`."
    )
    assert trainer.global_step == 6
