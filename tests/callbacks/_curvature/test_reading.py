"""What defeats second derivatives: each is measured right, against a dense Hessian, or refused with what helps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.measured import dense, fit
from helpers.networks import Batch, Classifier, data, quiet_trainer
from helpers.tiny import Checkpointed, CustomHidden, Tiny
from torch import Tensor, nn
from torch.nn import functional

from lightning_ww.callbacks import CurvatureMonitor


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
    parts = torch.autograd.grad(z.sum(), params, retain_graph=True, allow_unused=True)
    params = [p for p, part in zip(params, parts, strict=True) if part is not None]
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


def test_a_check_that_is_switched_off_measures_all_the_same() -> None:
    monitor, _, _ = fit(CustomHidden(), self_check=False)
    assert len(monitor.history) == 2


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
