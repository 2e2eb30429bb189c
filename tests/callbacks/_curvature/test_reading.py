"""What defeats second derivatives: each is measured right, against a dense Hessian, or refused with what helps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.custom_functions import HiddenIntermediate, OnceDifferentiable
from helpers.networks import Batch, Classifier, data, quiet_trainer
from helpers.tiny import Batches, Tiny
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from lightning_ww.callbacks import CurvatureMonitor


def fit(model: Any, **arguments: Any) -> tuple[CurvatureMonitor, Batches, Trainer]:
    """Train for an epoch, measuring before and after; errors are raised unless told otherwise."""
    precision = arguments.pop("precision", "64-true")
    defaults: dict[str, Any] = {"every_n_epochs": 1, "num_steps": 60, "on_error": "raise"}
    monitor, batches = CurvatureMonitor(**(defaults | arguments)), Batches()
    trainer = quiet_trainer(callbacks=[batches, monitor], max_epochs=1, precision=precision, limit_train_batches=3)
    trainer.fit(model, data(), data(16, shuffle=False))
    return monitor, batches, trainer


def dense(twin: Any, batch: Batch, *, training: bool = False) -> Tensor:
    """Eigenvalues of the Hessian of what `reference` returns, else of the training step, by torch.autograd.functional."""
    torch.compiler.set_stance("force_eager")
    for module in twin.modules():
        module.training = training and isinstance(module, nn.BatchNorm1d)
    step = getattr(twin, "reference", twin.training_step)
    named = {name: p for name, p in twin.named_parameters() if p.requires_grad}

    class Calling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = twin

        def forward(self) -> Any:
            return step(batch, 0)

    def loss(w: Tensor) -> Tensor:
        parts = torch.split(w, [p.numel() for p in named.values()])
        pairs = zip(parts, named.items(), strict=True)
        weights = {f"inner.{name}": part.view_as(p) for part, (name, p) in pairs}
        return torch.func.functional_call(Calling(), weights, ())  # type: ignore[no-any-return]

    flat = torch.cat([p.detach().reshape(-1) for p in named.values()])
    H: Tensor = torch.autograd.functional.hessian(loss, flat)  # type: ignore[no-untyped-call]
    return torch.as_tensor(torch.linalg.eigvalsh(H))


class Attending(Tiny):
    """Fused attention has no second derivative; the reference writes it out."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.head = nn.Linear(24, 16)

    def logits(self, x: Tensor, by_hand: bool) -> Tensor:
        q, k, v = self.qkv(x.view(-1, 6, 4)).chunk(3, dim=-1)
        if by_hand:
            return torch.as_tensor(self.head((torch.softmax(q @ k.mT / 2, -1) @ v).flatten(1)))
        return torch.as_tensor(self.head(functional.scaled_dot_product_attention(q, k, v).flatten(1)))

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return functional.cross_entropy(self.logits(batch[0], by_hand=False), batch[1])

    def reference(self, batch: Batch, batch_idx: int) -> Any:
        return functional.cross_entropy(self.logits(batch[0], by_hand=True), batch[1])


class Encoder(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.2, batch_first=True)
        self.head = nn.Linear(24, 3)
        del self.hidden

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.encoder(x.view(-1, 6, 4)).flatten(1)))

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return functional.cross_entropy(self(batch[0]), batch[1] % 3)

    def reference(self, batch: Batch, batch_idx: int) -> Any:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return self.training_step(batch, batch_idx)


class Recurrent(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        del self.hidden

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.lstm(x.view(-1, 6, 4))[0][:, -1]))


class Compiled(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.fast: Any = torch.compile(nn.Sequential(self.hidden, nn.Tanh()), backend="eager")
        del self.hidden

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.fast(x)))


class Checkpointed(Tiny):
    reentrant = False

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(lambda x: torch.tanh(self.hidden(x)), x.requires_grad_(), use_reentrant=self.reentrant)
        return torch.as_tensor(self.head(hidden))

    def reference(self, batch: Batch, batch_idx: int) -> Any:
        return functional.cross_entropy(super().forward(batch[0]), batch[1])


class Reentrant(Checkpointed):
    reentrant = True


class Normed(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.dropout(torch.tanh(self.norm(self.hidden(x))))))


class Huber(Tiny):
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return functional.huber_loss(self(batch[0]), 2 * functional.one_hot(batch[1], 16).to(batch[0].dtype), delta=0.7)


class Squared(Tiny):
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return functional.mse_loss(self(batch[0]), functional.one_hot(batch[1], 16).to(batch[0].dtype))


class InPlace(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(functional.relu(self.hidden(x), inplace=True)))


class FrozenUnusedTied(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.back = nn.Linear(3, 24)
        self.back.weight = nn.Parameter(self.back.weight.detach())
        self.again = nn.Linear(3, 16)
        self.again.weight = self.head.weight
        self.unused = nn.Linear(2, 2)
        self.hidden.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.hidden(x))
        return torch.as_tensor(self.head(hidden) + self.again(torch.tanh(self.back(hidden))[:, :3]))


class OfInference(Tiny):
    """Its batches are inference tensors, which autograd cannot save."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        with torch.inference_mode():
            return (batch[0] + 0, batch[1] + 0)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return super().training_step((batch[0].clone(), batch[1].clone()), batch_idx)


class Greedy(Tiny):
    """Takes its batch apart."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {"x": batch[0], "y": batch[1]} if isinstance(batch, list | tuple) else batch

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if isinstance(batch, dict):
            batch = (batch.pop("x"), batch.pop("y"))
        return super().training_step(batch, batch_idx)


class WeightNormed(Tiny):
    """The second derivative of torch's fused weight norm is wrong on the CPU; the reference writes it out."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.utils.parametrizations.weight_norm(self.hidden)

    def reference(self, batch: Batch, batch_idx: int) -> Any:
        g, v = self.hidden.parametrizations.weight.original0, self.hidden.parametrizations.weight.original1  # type: ignore[union-attr]
        hidden = functional.linear(batch[0], g * v / v.norm(dim=1, keepdim=True), self.hidden.bias)  # type: ignore[operator]
        return functional.cross_entropy(self.head(torch.tanh(hidden)), batch[1])


class OlderWeightNormed(Tiny):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.weight_norm(self.hidden)

    def reference(self, batch: Batch, batch_idx: int) -> Any:
        g, v = self.hidden.weight_g, self.hidden.weight_v
        hidden = functional.linear(batch[0], g * v / v.norm(dim=1, keepdim=True), self.hidden.bias)  # type: ignore[operator]
        return functional.cross_entropy(self.head(torch.tanh(hidden)), batch[1])


class Stateful(Tiny):
    """Its loss depends on how often it was called, and on what it saw then."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.state = 0, torch.zeros(1, dtype=torch.float64)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        self.calls += 1
        loss = functional.cross_entropy(self(batch[0]) * (1 + self.state), batch[1]) * self.calls
        self.state = loss.detach().reshape(1)
        return loss

    def reference(self, batch: Batch, batch_idx: int) -> Any:
        return functional.cross_entropy(self(batch[0]), batch[1])


class Penalized(Tiny):
    """Takes gradients of its own."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        x = batch[0].detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(self(x).square().mean(), x, create_graph=True)
        return functional.cross_entropy(self(x), batch[1]) + slope.square().sum()


class MakesTensors(Tiny):
    """Makes tensors of the default type, which is float64 in its training."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(torch.tanh(self.hidden(x)) + torch.zeros(3) @ torch.eye(3, dtype=x.dtype)))

    def reference(self, batch: Batch, batch_idx: int) -> Any:
        return functional.cross_entropy(super().forward(batch[0]), batch[1])


@pytest.mark.parametrize(
    "model",
    [
        *(WeightNormed, OlderWeightNormed, Stateful, Penalized, MakesTensors),
        *(Attending, Encoder, Recurrent, Compiled, Checkpointed, Normed, Huber, Squared, InPlace),
        *(FrozenUnusedTied, OfInference, Greedy),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_hessian_is_the_dense_one(model: Any) -> None:
    monitor, batches, _ = fit(model())
    batch, twin = batches.seen[0]
    values = dense(twin, batch)
    density = monitor.history[0].density
    assert density.dim == len(values)
    assert density.sharpness == pytest.approx(float(values[-1]), rel=1e-6)
    assert density.lambda_min == pytest.approx(float(values[0]), rel=1e-2, abs=1e-9)


@pytest.mark.parametrize("model", [Attending, Encoder, Recurrent, Compiled, Checkpointed, Normed, InPlace, Greedy])
def test_gauss_newton_is_the_dense_jacobians(model: Any) -> None:
    monitor, batches, _ = fit(model(), matrix="ggn")
    batch, twin = batches.seen[0]
    twin.eval()
    x, y = batch.values() if isinstance(batch, dict) else batch
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        z: Any = twin.logits(x, by_hand=True) if isinstance(twin, Attending) else twin(x)
    y = y % z.shape[1]
    params = [p for p in twin.parameters() if p.requires_grad]
    rows = [torch.autograd.grad(one, params, retain_graph=True, materialize_grads=True) for one in z.view(-1)]
    J = torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])
    p = z.detach().softmax(1)
    H: Tensor = torch.block_diag(*(torch.diag(row) - torch.outer(row, row) for row in p)) / len(p)  # type: ignore[no-untyped-call]
    values = torch.linalg.eigvalsh(J.T @ H @ J)
    density = monitor.history[0].density
    assert density.dim == len(values)
    assert density.sharpness == pytest.approx(float(values[-1]), rel=1e-6)
    assert density.lambda_min > -1e-9 * density.sharpness


def test_batch_norm_in_training_mode_is_the_dense_hessian_of_that_mode() -> None:
    found = {}
    for mode in ("eval", "train"):
        monitor, batches, _ = fit(Normed(), bn_mode=mode)
        batch, twin = batches.seen[0]
        found[mode] = monitor.history[0].density.sharpness
        assert found[mode] == pytest.approx(float(dense(twin, batch, training=mode == "train")[-1]), rel=1e-6)
    assert abs(found["train"] / found["eval"] - 1) > 0.05


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16-mixed", 1e-4), ("32-true", 1e-4), ("bf16-true", 2e-2)])
def test_half_precision_is_taken_up_to_float32(precision: str, tolerance: float) -> None:
    monitor, batches, _ = fit(Tiny(), precision=precision)
    (x, y), twin = batches.seen[0]
    values = dense(twin.double(), (x.double(), y))
    assert monitor.history[0].density.nodes.dtype == torch.float64
    assert monitor.history[0].density.sharpness == pytest.approx(float(values[-1]), rel=tolerance)


class Custom(Tiny):
    function: Any = OnceDifferentiable

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(type(self).function.apply(self.hidden(x))))


class CustomHidden(Custom):
    function = HiddenIntermediate

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(3 * x)


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        (Reentrant, {}, ["use_reentrant", "checkpoint with `use_reentrant=False`."]),
        (Custom, {}, ["cannot be differentiated again", "leave the layers out with `params=`", "`loss_fn=`"]),
        (Custom, {"matrix": "ggn"}, ["not the transpose of its backward pass", "`loss_fn=`"]),
        (CustomHidden, {}, ["but the loss bends by", "`params=`", "`self_check=False`"]),
    ],
    ids=["reentrant checkpoint", "once differentiable", "once differentiable, Gauss–Newton", "hidden intermediate"],
)
def test_what_autograd_cannot_do_is_refused_once_and_the_run_goes_on(
    model: Any, arguments: dict[str, Any], words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    monitor, _, trainer = fit(model(), on_error="warn", **arguments)
    said = [record.getMessage() for record in caplog.records if record.name == "lightning_ww"]
    assert len(said) == 1
    assert said[0].startswith("`CurvatureMonitor` cannot measure in this run, and stops trying. ")
    for word in words:
        assert word in said[0]
    assert trainer.global_step == 3
    assert len(monitor.history) == 0
    assert not [key for key in trainer.callback_metrics if key.startswith("curvature")]
    with pytest.raises(RuntimeError, match=re.escape(words[0])):
        fit(model(), on_error="raise", **arguments)


def test_a_check_that_is_switched_off_measures_all_the_same() -> None:
    monitor, _, _ = fit(CustomHidden(), self_check=False)
    assert len(monitor.history) == 2


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


@dataclass
class Points:
    x: Tensor
    y: Tensor


class OfObjects(Tiny):
    """Its batches are objects that no library knows."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return Points(*batch) if isinstance(batch, list | tuple) else batch

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return batch

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step((batch.x, batch.y), batch_idx)


def test_batches_that_are_objects_have_their_size() -> None:
    monitor, _, _ = fit(OfObjects(), precision="32-true", num_batches=2)
    plain, _, _ = fit(Tiny(), precision="32-true", num_batches=2)
    assert monitor.history[0].summary["batch_size"] == 32
    assert plain.history[0].density.dim == monitor.history[0].density.dim


def test_a_detached_part_of_the_loss_is_named() -> None:
    class Stopped(Tiny):
        def training_step(self, batch: Batch, batch_idx: int) -> Any:
            return functional.mse_loss(self.hidden(batch[0]), 3 * self.hidden(batch[0].flip(1)).detach().square())

    with pytest.raises(RuntimeError, match="part of it is detached"):
        fit(Stopped())


def test_loggers_say_where_they_write_while_they_are_silent(tmp_path: Path) -> None:
    asked = []

    class Asking(Tiny):
        def training_step(self, batch: Batch, batch_idx: int) -> Any:
            logger: Any = self.logger
            asked.append((self.training, logger.name, logger.version, logger.save_dir, logger.log_dir, logger.root_dir))
            return super().training_step(batch, batch_idx)

    trainer = quiet_trainer(
        callbacks=[CurvatureMonitor(every_n_epochs=1, num_steps=3, on_error="raise")],
        logger=CSVLogger(str(tmp_path), name="a", version="b"),
        max_epochs=1,
    )
    trainer.fit(Asking(), data(), data(16, shuffle=False))
    assert {answer[1:] for answer in asked if answer[0]} == {answer[1:] for answer in asked if not answer[0]}
    assert len({answer[0] for answer in asked}) == 2


def test_what_cannot_be_measured_is_an_error_before_the_first_step_also_with_several_batches() -> None:
    class ByHandLoss(Tiny):
        def training_step(self, batch: Batch, batch_idx: int) -> Any:
            return functional.l1_loss(self(batch[0]), torch.zeros(()).to(batch[0]))

    trainer = quiet_trainer(callbacks=[CurvatureMonitor(matrix="ggn", num_batches=3)], max_epochs=1)
    with pytest.warns(UserWarning, match="Using a target size"), pytest.raises(ValueError, match="Pass `ggn_fn=`"):
        trainer.fit(ByHandLoss(), data(), data(16, shuffle=False))
    assert trainer.global_step == 0


def test_data_that_cannot_be_read_are_said_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        yield from ()
        raise OSError("disk gone")

    monitor, _, trainer = fit(Tiny(), data=broken(), on_error="warn")
    assert "could not take a batch at step 0 (OSError: disk gone)" in caplog.text
    assert trainer.global_step == 3
    assert len(monitor.history) == 0


def test_own_data_pass_the_hooks_of_the_datamodule() -> None:
    class Module(LightningDataModule):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch["x"], batch["y"]

        def train_dataloader(self) -> Any:
            samples = [{"x": x, "y": y} for batch in data() for x, y in zip(*batch, strict=True)]
            return DataLoader(samples, batch_size=16)  # type: ignore[arg-type]

        def val_dataloader(self) -> Any:
            return DataLoader([{"x": torch.zeros(1), "y": torch.zeros(1)}])  # type: ignore[arg-type]

    monitor = CurvatureMonitor(every_n_epochs=1, data=[{"x": x, "y": y} for x, y in data(16)], on_error="raise")
    trainer = quiet_trainer(callbacks=[monitor], max_epochs=1)
    trainer.fit(Tiny(), datamodule=Module())
    assert monitor.history[0].summary["batch_size"] == 16


def test_a_run_that_ends_before_its_batches_are_there_says_so(caplog: pytest.LogCaptureFixture) -> None:
    monitor = CurvatureMonitor(every_n_epochs=1, num_batches=5, num_steps=3)
    trainer = quiet_trainer(callbacks=[monitor], max_steps=2, max_epochs=-1)
    trainer.fit(Tiny(), data(), data(16, shuffle=False))
    assert "measures on 2 batches: an epoch has no more (`num_batches=5`)" in caplog.text
    assert len(monitor.history) == 1


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


class Diverging(Classifier):
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss / (0 if self.trainer.global_step else 1)


def test_a_loss_that_is_not_finite_is_said_once_and_published_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    monitor = CurvatureMonitor(every_n_train_steps=1, num_steps=3)
    trainer = quiet_trainer(callbacks=[monitor], max_epochs=1)
    trainer.fit(Diverging(), data(), data(16, shuffle=False))
    said = [record.getMessage() for record in caplog.records if "could not measure" in record.getMessage()]
    assert len(said) == 1
    assert "gives a loss of inf" in said[0]
    assert trainer.global_step == 6
    assert len(monitor.history) == 1
    assert all(torch.isfinite(value) for key, value in trainer.callback_metrics.items() if key.startswith("curvature"))


def test_products_leave_gradients_and_hooks_of_parameters_alone() -> None:
    model, fired = Tiny(), []
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: fired.append(1))  # type: ignore[no-untyped-call]
    fit(model, precision="32-true")
    assert len(fired) == 4 * 3  # four parameters, three steps of training
