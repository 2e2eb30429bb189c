"""A loss that can be evaluated in mid-run, or an error that says what to pass."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from helpers.measured import dense, fit
from helpers.networks import Batch, data, quiet_trainer
from helpers.tiny import Tiny
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


def test_manual_optimization_needs_a_loss() -> None:
    message = (
        "`CurvatureMonitor`: this ByHand optimizes by hand (`automatic_optimization = False`), so its `training_step` moves "
        "the weights. Pass `loss_fn=`, `(pl_module, batch) -> loss`, or give the module a method `curvature_loss(batch)`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(ByHand(), on_error="warn")
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
        (Silent, "`training_step`, in evaluation mode, returned `None` instead of a loss. Pass `loss_fn=`."),
    ],
)
def test_a_step_that_is_no_loss_is_an_error_before_the_first_step(model: Any, message: str) -> None:
    twin = model()
    before = {name: value.clone() for name, value in twin.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(twin, on_error="warn", precision="32-true")
    for name, value in twin.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_what_cannot_be_measured_is_an_error_before_the_first_step_also_with_several_batches() -> None:
    class ByHandLoss(Tiny):
        def training_step(self, batch: Batch, batch_idx: int) -> Any:
            return functional.l1_loss(self(batch[0]), torch.zeros(()).to(batch[0]))

    trainer = quiet_trainer(callbacks=[CurvatureMonitor(matrix="ggn", num_batches=3)], max_epochs=1)
    with pytest.warns(UserWarning, match="Using a target size"), pytest.raises(ValueError, match="Pass `ggn_fn=`"):
        trainer.fit(ByHandLoss(), data(), data(16, shuffle=False))
    assert trainer.global_step == 0


@pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor")
def test_a_step_that_draws_its_own_batches_needs_data_and_a_loss() -> None:
    class Drawing(Tiny):
        def training_step(self, dataloader_iter: Any) -> Any:  # type: ignore[override]
            batch, _, _ = next(dataloader_iter)
            return super().training_step(batch, 0)

    message = (
        "`CurvatureMonitor`: this Drawing draws its batches itself (`dataloader_iter`). Pass `data=` and `loss_fn=`, "
        "`(pl_module, batch) -> loss`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(Drawing())
