"""When landscapes are taken, and what is evaluated: losses and accuracies as a user would compute them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.fits import curvature_monitor, fit
from helpers.networks import Classifier, data, quiet_trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional

from lightning_ww.callbacks import CurvatureMonitor
from lightning_ww.callbacks._curvature.landscapes import Landscapes, checked, functions_of
from lightning_ww.callbacks._sandbox.batches import CapturedBatch


def test_the_argument_says_when() -> None:
    assert [number for number in range(7) if Landscapes(3).is_due(number)] == [0, 3, 6]
    assert not Landscapes(3).is_due(None)
    assert Landscapes("end").is_due(None)
    assert not Landscapes("end").is_due(0)
    assert not any(Landscapes(None).is_due(number) for number in (None, 0, 1))
    for unfit in (0, -1, True, "start", 1.5):
        wrong: Any = unfit
        with pytest.raises(ValueError, match=r"`CurvatureMonitor\(landscape="):
            checked("CurvatureMonitor", wrong)


@pytest.mark.usefixtures("no_bound_on_pictures")
@pytest.mark.parametrize(("when", "steps"), [("end", [11]), (2, [0, 11])])
def test_it_is_taken_at_the_end_or_every_few_measurements(when: Any, steps: list[int], tmp_path: Any) -> None:
    model, logger = Classifier(), TensorBoardLogger(str(tmp_path))
    ours = curvature_monitor(landscape=when, num_steps=5)
    fit(ours, model=model, max_epochs=2, logger=logger)
    found = ours.loss_landscape
    assert found is not None
    assert found.names == ("train loss", "train accuracy", "validation loss", "validation accuracy")
    middle = found.values[:, 0, 10]
    batch = next(iter(data(32, seed=1, shuffle=False)))
    with torch.no_grad():
        outputs = model(batch[0])
    assert float(middle[2]) == pytest.approx(functional.cross_entropy(outputs, batch[1]).item(), rel=1e-5)
    assert float(middle[3]) == pytest.approx((outputs.argmax(1) == batch[1]).double().mean().item())
    images = EventAccumulator(str(logger.log_dir), size_guidance={"images": 0}).Reload().Images("curvature/landscape")
    assert [image.step for image in images] == steps
    assert all(torch.allclose(found.values[:, i, 10], middle) for i in range(len(found.directions)))


def test_without_it_nothing_is_kept_or_evaluated() -> None:
    ours = curvature_monitor(num_steps=3)
    fit(ours, max_epochs=1)
    assert ours.loss_landscape is None
    assert ours._reader.landscapes.validation is None


class Loss:
    """A loss of batches, a stand-in for the sandbox's."""

    def __init__(self, kind: str, *batches: CapturedBatch) -> None:
        self.kind, self.batches, self.shares = kind, batches, [1.0, 3.0][: len(batches)]

    def of(self, captured: CapturedBatch) -> torch.Tensor:
        x, y = captured.fresh()
        if self.kind == "labels":
            return functional.cross_entropy(x, y)
        if self.kind == "probabilities":
            return functional.cross_entropy(x, functional.one_hot(y, 3).float())
        return functional.mse_loss(x, functional.one_hot(y, 3).float())


def batch_of(seed: int) -> CapturedBatch:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(8, 3, generator=generator), torch.randint(3, (8,), generator=generator)
    y[0] = -100  # ignored
    return CapturedBatch.of((x, y), 0, 8)


def test_accuracies_are_weighted_by_shares_and_only_of_labels() -> None:
    batches = batch_of(0), batch_of(1)
    loss: Any = Loss("labels", *batches)
    functions, why = functions_of(loss, None)
    assert not why
    assert list(functions) == ["train loss", "train accuracy"]
    functions["train loss"]()
    hits = []
    for batch in batches:
        x, y = batch.fresh()
        hits.append(float((x.argmax(1) == y)[1:].double().mean()))
    assert float(functions["train accuracy"]()) == pytest.approx(hits[0] / 4 + 3 * hits[1] / 4)
    x, y = batches[0].fresh()
    y[0] = 0
    plain = CapturedBatch.of((x, y), 0, 8)
    for kind in ("probabilities", "squares"):
        other: Any = Loss(kind, plain)
        assert list(functions_of(other, plain)[0]) == ["train loss", "validation loss"]


def test_an_accuracy_is_not_that_of_another_place_where_the_loss_fails() -> None:
    loss: Any = Loss("labels", batch_of(0))
    functions, _ = functions_of(loss, None)
    functions["train loss"]()
    assert float(functions["train accuracy"]()) >= 0

    def fail(_: Any) -> torch.Tensor:
        raise ValueError("overflow")

    loss.of = fail
    with pytest.raises(ValueError, match="overflow"):
        functions["train loss"]()
    assert functions["train accuracy"]().isnan()


def test_a_validation_batch_of_another_form_costs_only_its_own_curve() -> None:
    class Other(Classifier):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", super().training_step(batch["x"], batch_idx))

        def val_dataloader(self) -> Any:
            rows: Any = [{"x": batch} for batch in data(32, shuffle=False)]
            return torch.utils.data.DataLoader(rows, batch_size=None)

    ours = CurvatureMonitor(1, landscape="end", num_steps=4)
    trainer = quiet_trainer(callbacks=[ours], max_epochs=1)
    with pytest.warns(UserWarning, match="shows no validation loss along the curvature"):
        trainer.fit(Other(), data(64))
    assert ours.loss_landscape is not None
    assert ours.loss_landscape.names == ("train loss", "train accuracy")
