"""`sandbox`: the user's loss on copies of the weights; what the evaluation does besides leaves no trace."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.networks import Busy, data, quiet_trainer
from helpers.tiny import Tiny
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.nn import functional

from lightning_ww.callbacks._sandbox import sandbox
from lightning_ww.callbacks._sandbox.batches import CapturedBatch


class Inside(Callback):
    """Does something in the sandbox before the first step."""

    def __init__(self, action: Callable[[Any], Any], **arguments: Any) -> None:
        self.action, self.arguments = action, arguments
        self.result: Any = None
        self.before: dict[str, Tensor] = {}
        self.after: dict[str, Tensor] = {}
        self.batch: Any = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.result is not None:
            return
        self.batch = copy.deepcopy(batch)
        self.before = {name: value.clone() for name, value in pl_module.state_dict().items()}
        half = [CapturedBatch.of([part[:4] for part in batch], 0, 4), [part[4:] for part in batch]]
        with sandbox(trainer, pl_module, half, **self.arguments) as loss:
            self.result = self.action(loss)
        self.after = {name: value.clone() for name, value in pl_module.state_dict().items()}


def run(inside: Inside, model: LightningModule | None = None, **arguments: Any) -> LightningModule:
    model = Tiny() if model is None else model
    trainer = quiet_trainer(callbacks=[inside], max_epochs=1, limit_train_batches=1, limit_val_batches=0, **arguments)
    trainer.fit(model, data(shuffle=False), data(16, shuffle=False))
    return model


def test_the_loss_is_the_mean_over_all_samples_and_its_gradient_a_plain_backward_passs() -> None:
    def differentiate(loss: Any) -> Any:
        value = loss()
        return value.detach(), torch.autograd.grad(value, loss.params), list(loss.names), loss.num_samples

    inside = Inside(differentiate)
    run(inside, precision="64-true")
    value, gradients, names, samples = inside.result
    twin = Tiny().double()
    twin.load_state_dict(inside.before)
    expected = functional.cross_entropy(twin(inside.batch[0]), inside.batch[1])
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(value, expected.detach())
    assert samples == 16
    for name, gradient in zip(names, gradients, strict=True):
        torch.testing.assert_close(gradient, twin.get_parameter(name).grad)


def test_copies_may_be_moved_and_the_loss_follows_while_the_module_is_as_it_was() -> None:
    def move(loss: Any) -> Any:
        here = float(loss().detach())
        with torch.no_grad():
            for parameter in loss.params:
                parameter.zero_()
        return here, float(loss().detach())

    inside = Inside(move)
    model = run(inside, precision="64-true")
    here, at_zero = inside.result
    assert at_zero == pytest.approx(float(torch.log(torch.tensor(16.0))), rel=1e-6)  # all classes are alike
    assert here != at_zero
    for name, value in inside.after.items():
        assert torch.equal(value, inside.before[name])
    assert all(parameter.is_leaf for parameter in model.parameters())


def test_the_module_holds_the_copies_while_it_is_open_and_its_own_parameters_afterwards() -> None:
    seen: list[bool] = []

    class Watching(Tiny):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            seen.append(self.hidden.weight is own)
            return super().training_step(batch, batch_idx)

    model = Watching()
    own = model.hidden.weight
    run(Inside(lambda loss: float(loss().detach())), model)
    assert seen == [False, False, True]  # two batches inside, and the step of training
    assert model.hidden.weight is own


def test_chosen_parameters_and_a_loss_of_the_users() -> None:
    inside = Inside(
        lambda loss: (loss.names, float(loss().detach())),
        params="head.*",
        loss_fn=lambda module, batch: module.head.weight.square().sum(),
    )
    run(inside)
    names, value = inside.result
    assert names == ["head.weight", "head.bias"]
    assert value == pytest.approx(float(inside.before["head.weight"].square().sum()), rel=1e-5)


def test_a_busy_module_is_the_same_to_the_bit_after_many_evaluations() -> None:
    def evaluate(loss: Any) -> Any:
        return [float(loss().detach()) for _ in range(3)]

    found = []
    for action in (evaluate, lambda loss: 0):
        seed_everything(0, verbose=False)
        inside = Inside(action)
        model: Any = run(inside, Busy())
        found.append((model.state_dict(), list(model.losses), model.meter.count, dict(model.census), bytes(model.tape)))
        if action is evaluate:
            assert len(set(inside.result)) == 1  # the same each time
    for (name, a), b in zip(found[0][0].items(), found[1][0].values(), strict=True):
        assert torch.equal(a, b), name
    assert found[0][1:] == found[1][1:]
