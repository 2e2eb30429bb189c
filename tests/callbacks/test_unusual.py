"""Unusual models, losses and batches: the run is as without us, and the curvature is right, or a warning says why not."""

from __future__ import annotations

import copy
import functools
import queue
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers.measured import dense
from helpers.networks import quiet_trainer
from pytorch_lightning import Callback, LightningModule, seed_everything
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

from lightning_ww.callbacks import CurvatureMonitor, SpectralEarlyStopping, WeightSpectrumMonitor
from lightning_ww.callbacks._monitor.lightning import callbacks


def points(samples: int = 48) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(samples, 6, generator=generator), torch.randint(4, (samples,), generator=generator)
    )


class Plain(LightningModule):
    """A linear classifier, trained by plain gradient descent."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 4)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(
    model: Callable[[], LightningModule], loader: Any = None, callbacks: Any = (), **options: Any
) -> LightningModule:
    seed_everything(0, verbose=False)
    trained = model()
    loader = DataLoader(points(), 16) if loader is None else loader
    trainer = quiet_trainer(callbacks=list(callbacks), **{"max_epochs": 2, **options})
    trainer.fit(trained, loader() if callable(loader) else loader)
    return trained


def compared(
    model: Callable[[], LightningModule], loader: Any = None, **arguments: Any
) -> tuple[CurvatureMonitor, str]:
    """Train with and without a monitor; return it, and what it said. The weights have to be equal to the bit."""
    options = arguments.pop("options", {})
    monitor = CurvatureMonitor(**{"every_n_epochs": 1, "num_steps": 24, **arguments})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plain = train(model, loader, **options)
        watched = train(model, loader, [monitor], **options)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    return monitor, "\n".join(str(w.message) for w in caught if "`CurvatureMonitor`" in str(w.message))


# ── Batches


class Skipping(Plain):
    """Skips its first batches, as those without a valid sample are."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx == 0 else super().training_step(batch, batch_idx)


class Dividing(Plain):
    """Its loss is NaN for the first batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * (torch.nan if batch_idx == 0 and not self.training else 1)


class Empty(Plain):
    """Gets no samples at first."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [part[:0] if self.global_step == 0 and part.shape[0] == 16 else part for part in batch]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) if len(batch[0]) else None


class Failing(Plain):
    """Fails outside of training on its first batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 0 and not self.training:
            raise KeyError("no such label")
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("model", [Skipping, Dividing, Empty, Failing])
@pytest.mark.parametrize("num_batches", [1, 2])
def test_a_later_batch_is_measured_where_the_first_is_unfit(model: Any, num_batches: int) -> None:
    monitor, said = compared(model, num_batches=num_batches)
    assert "measures from a later batch on: 1 could not be measured. Of the first: " in said
    assert monitor.history[-1].step == 6
    assert monitor.history[0].summary["num_samples"] == 16 * num_batches


class SecondFails(Plain):
    """Its loss is NaN for the second batch, which the try-out of the first does not see."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * (torch.nan if batch_idx == 1 and not self.training else 1)


def test_an_unfit_batch_among_several_is_left_out() -> None:
    monitor, said = compared(SecondFails, num_batches=2)
    assert "1 could not be measured" in said
    assert monitor.history[0].summary["num_samples"] == 32
    assert [past.step for past in monitor.history] == [2, 3, 6]


def test_a_batch_that_cannot_be_copied_is_left_unconsumed() -> None:
    class Streaming(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return functional.cross_entropy(self.net(torch.stack(list(batch[0]))), batch[1])

    def stream(samples: Any) -> Any:
        return (x for x, _ in samples), torch.stack([y for _, y in samples])

    monitor, said = compared(Streaming, lambda: DataLoader(points(), 16, collate_fn=stream))
    assert not monitor.history
    assert said.count("\n") == 0
    assert "cannot be copied (TypeError: cannot pickle 'generator' object" in said


@dataclass
class Slotted:
    """A batch with slots."""

    __slots__ = ("x", "y")
    x: Tensor
    y: Tensor


class Graphs:
    """A batch of graphs, as PyTorch Geometric has it: more nodes than graphs."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x.repeat_interleave(3, 0), y
        self.num_graphs = len(y)

    def to(self, *_: Any, **__: Any) -> Any:
        return self


class OfSlots(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return functional.cross_entropy(self.net(batch.x)[:: len(batch.x) // len(batch.y)], batch.y)


class TimeFirst(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return functional.cross_entropy(self.net(batch[0]).mean(0), batch[1])


def collated(kind: Callable[[Tensor, Tensor], Any]) -> Callable[[Any], Any]:
    return lambda samples: kind(torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples]))


@pytest.mark.parametrize("kind", [Slotted, Graphs])
def test_batches_are_weighted_by_their_samples(kind: Any) -> None:
    monitor, said = compared(OfSlots, lambda: DataLoader(points(18), 16, collate_fn=collated(kind)), num_batches=2)
    assert "cannot tell" not in said
    first = monitor.history[0]
    assert (first.summary["num_samples"], first.summary["batch_size"]) == (18, 9)
    seed_everything(0, verbose=False)
    twin, (x, y) = Plain(), points(18).tensors
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    functional.cross_entropy(twin.net(x[:16]), y[:16]).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert first.density.sharpness == pytest.approx(float(dense(twin, (x, y))[-1]), rel=1e-4)


def test_where_tensors_disagree_on_the_size_a_function_tells_it() -> None:
    def loader() -> Any:
        return DataLoader(points(), 16, collate_fn=collated(lambda x, y: [x.expand(5, *x.shape), y]))

    monitor, said = compared(TimeFirst, loader)
    assert "Pass `batch_size_fn=`, a function `batch -> int`." in said
    assert "batch_size" not in monitor.history[0].summary
    monitor, said = compared(TimeFirst, loader, batch_size_fn=lambda batch: len(batch[1]))
    assert "batch_size_fn" not in said
    assert monitor.history[0].summary["batch_size"] == 16


# ── Layers


class Renormed(Plain):
    """Its embedding scales its rows in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 6, max_norm=1.0)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        rows = self.embedding((batch[0].abs() * 2).long().clamp(max=4)).mean(1)
        return functional.cross_entropy(self.net(rows), batch[1])


class Sparse(Plain):
    """Its embedding has sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 6, sparse=True)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        rows = self.embedding((batch[0].abs() * 2).long().clamp(max=4)).mean(1)
        return functional.cross_entropy(self.net(rows), batch[1])


class Bags(Sparse):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(5, 6, mode="sum")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return functional.cross_entropy(self.net(self.bag((batch[0].abs() * 2).long().clamp(max=4))), batch[1])


class Complex(Plain):
    """Its logits are imaginary parts."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 4, dtype=torch.cfloat)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return functional.cross_entropy(self.net(batch[0].to(self.net.weight.dtype)).imag, batch[1])


class OwnDtype(Plain):
    """Converts its data, and makes its states, in its own dtype."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        state = torch.zeros(len(batch[0]), 4, dtype=cast(torch.dtype, self.dtype))
        return functional.cross_entropy(self.net(batch[0].to(self.dtype)) + state, batch[1])


class InTrainingOnly(Plain):
    """Has a loss in training mode only, as detection models."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) if self.net.training else {"boxes": []}


@pytest.mark.parametrize("model", [Renormed, Sparse, Bags, Complex])
def test_layers_that_torch_cannot_differentiate_twice_are_measured(model: Any) -> None:
    monitor, said = compared(model)
    assert len(monitor.history) == 3
    assert "cannot" not in said


def test_a_loss_of_complex_weights_has_the_hessian_of_their_real_and_imaginary_parts() -> None:
    monitor, _ = compared(Complex, num_steps=60)
    seed_everything(0, verbose=False)
    twin, (x, y) = Complex(), [part[:16] for part in points().tensors]
    flat = torch.cat([twin.net.weight.detach().imag.flatten(), twin.net.bias.detach().imag]).double()
    H = torch.autograd.functional.hessian(  # type: ignore[no-untyped-call]
        lambda w: functional.cross_entropy(x.double() @ w[:24].view(4, 6).T + w[24:], y), flat
    )
    assert monitor.history[0].density.dim == 2 * len(flat)  # the real parts have no curvature here
    assert monitor.history[0].density.sharpness == pytest.approx(float(torch.linalg.eigvalsh(H)[-1]), rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_a_step_that_asks_for_its_own_dtype_is_measured_in_half_precision(precision: str) -> None:
    monitor, said = compared(OwnDtype, options={"precision": precision})
    assert len(monitor.history) == 3
    assert "cannot" not in said


class ListOfLosses(Plain):
    """Has losses in training mode, and a list of predictions in the other, as detection models do."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        outputs: Any = {"loss": super().training_step(batch, batch_idx)} if self.training else [self.net(batch[0])]
        return sum(outputs.values())


class Asserting(Plain):
    """Insists on training mode."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert self.training, "only in training"
        return super().training_step(batch, batch_idx)


class Predicting(Plain):
    """Returns predictions in the other mode."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) if self.training else self.net(batch[0])


@pytest.mark.parametrize("model", [InTrainingOnly, ListOfLosses, Asserting, Predicting])
def test_a_loss_in_training_mode_only_is_said_and_measured_in_that_mode(model: Any) -> None:
    monitor, said = compared(model)
    assert not monitor.history
    assert 'If it has a loss in training mode only, pass `mode="train"`.' in said
    monitor, said = compared(model, mode="train")
    assert len(monitor.history) == 3
    assert "training mode" not in said


class Global(Plain):
    """Counts its steps in a list that a cached function holds, and weights its loss by them: neither is seen."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        counts = cached_counts()
        counts[0] += 1
        return super().training_step(batch, batch_idx) * (1 + 0.1 * counts[0])


@functools.cache
def cached_counts() -> list[int]:
    return [0]


@pytest.mark.parametrize("self_check", [True, False])
def test_a_loss_that_counts_where_we_do_not_look_is_refused_whatever_is_checked(self_check: bool) -> None:
    monitor = CurvatureMonitor(every_n_epochs=1, num_steps=3, self_check=self_check)
    with pytest.warns(UserWarning, match="the same twice") as caught:
        train(Global, None, [monitor])
    (said,) = [str(one.message) for one in caught if "the same twice" in str(one.message)]
    assert "pass `loss_fn=`" in said
    assert "this run is not the same as without the monitor" in said
    assert "self_check" not in said
    assert not monitor.history


class Probe(Plain):
    """Trains a head on a body that runs without gradients, but requires them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 50), nn.ReLU(), nn.Linear(50, 6))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        with torch.no_grad():
            hidden = self.body(batch[0])
        return functional.cross_entropy(self.net(hidden), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


def test_parameters_that_the_loss_does_not_reach_are_left_out_and_said() -> None:
    monitor, said = compared(Probe)
    chosen, silent = compared(Probe, params="net.*")
    assert monitor.history[0].density.dim == chosen.history[0].density.dim == 28
    assert monitor.history[0].summary["num_parameters"] == 28
    torch.testing.assert_close(
        monitor.history[0].density.sharpness, chosen.history[0].density.sharpness, rtol=1e-4, atol=0
    )
    assert "leaves out `body.0.weight`, `body.0.bias`, `body.2.weight` and 1 more" in said
    assert "leaves out" not in silent


class Synchronized(Plain):
    """Synchronizes a target network in its step, as Q-learning does."""

    def __init__(self) -> None:
        super().__init__()
        self.target = copy.deepcopy(self.net)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.net.parameters(), strict=True):
                slow.mul_(0.9).add_(fast, alpha=0.1)
        return functional.mse_loss(self.net(batch[0]), self.target(batch[0]).detach() + 1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net.parameters(), lr=0.05)


class Frozen(Synchronized):
    """Its target network requires no gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.target.requires_grad_(False)


@pytest.mark.parametrize(("model", "params"), [(Synchronized, "net.*"), (Frozen, None)])
def test_a_network_beside_its_target_has_the_hessian_of_a_fixed_target(model: Any, params: Any) -> None:
    monitor, said = compared(model, params=params)
    assert len(monitor.history) == 3
    assert "cannot" not in said
    x = torch.cat([points().tensors[0][:16], torch.ones(16, 1)], 1).double()
    largest = float(torch.linalg.eigvalsh(2 * x.T @ x / (16 * 4))[-1])  # of a linear least-squares problem
    assert monitor.history[0].density.sharpness == pytest.approx(largest, rel=1e-4)


def test_a_target_network_that_is_not_left_out_is_refused_with_what_helps() -> None:
    monitor, said = compared(Synchronized)
    assert not monitor.history
    assert "`training_step` changes the weights (`target.weight`)" in said
    assert 'name only the others that are trained: `params="net.*"`' in said


# ── What a step does besides


POINTS: list[float] = []


class Noting(Plain):
    """Logs to a library of its own, and has a replay buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer: Any = deque((np.zeros(4), 0, 0.0) for _ in range(10_000))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        POINTS.append(float(loss.detach()))
        self.buffer.append((np.ones(4), 1, float(loss.detach())))
        return loss


class Counting(Callback):
    """Counts forward passes by a hook."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.passes = 0
        pl_module.net.register_forward_hook(self.hook)

    def hook(self, *_: Any) -> None:
        self.passes += 1


def test_evaluations_are_seen_by_nobody() -> None:
    found = []
    for monitors in ([], [CurvatureMonitor(every_n_epochs=1)]):
        POINTS.clear()
        counting = Counting()
        model = train(Noting, None, [counting, *monitors])
        found.append((list(POINTS), counting.passes, len(cast(Any, model).buffer)))
    assert found[0] == found[1]
    assert found[0][1] == 6


def test_before_the_first_step_there_are_at_most_four_evaluations() -> None:
    count, before_steps = [0], []

    def loss(module: Any, batch: Any) -> Tensor:
        count[0] += 1
        return functional.cross_entropy(module.net(batch[0]), batch[1])

    class Reading(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            before_steps.append(count[0])

    train(Plain, None, [CurvatureMonitor(every_n_epochs=1, loss_fn=loss), Reading()])
    assert 1 <= before_steps[0] <= 4
    assert count[0] == before_steps[0] + 2  # one at each later measurement


# ── Threads


class Multiplying(Plain):
    """Notes what it computes in, and torch's flags."""

    def __init__(self, seen: set[Any]) -> None:
        super().__init__()
        self.seen = seen

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.training:
            product = self.net(batch[0])
            flash: Any = torch.backends.cuda.flash_sdp_enabled
            flags = flash(), torch.backends.cudnn.enabled
            self.seen.add((product.dtype, *flags, torch.get_default_dtype()))
        return super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_runs_in_threads_beside_a_monitored_one_compute_as_alone() -> None:
    seen: set[Any] = set()
    errors: list[Exception] = []

    def trial(monitors: list[Any]) -> None:
        try:
            trainer = quiet_trainer(callbacks=monitors, max_epochs=8, precision="bf16-mixed")
            trainer.fit(Multiplying(seen), DataLoader(points(), 16))
        except Exception as error:
            errors.append(error)

    monitors = [[CurvatureMonitor(every_n_train_steps=1, num_steps=8)] for _ in range(2)]
    threads = [threading.Thread(target=trial, args=(own,)) for own in (*monitors, [])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert seen == {(torch.bfloat16, True, True, torch.float32)}
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert all(len(own.history) == 25 for (own,) in monitors)


# ── Following the sharpness


class TwoBlocks(Plain):
    """Its Hessian is diag(a², 5): the first eigenvalue falls below the second."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([4.0, 1.0]))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.w[0] ** 4 / 12 + 2.5 * self.w[1] ** 2

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.w], lr=0.05)


class Following(Callback):
    def __init__(self, exact: Callable[[Any, Any], float]) -> None:
        self.exact = exact
        self.pairs: list[tuple[float, float]] = []
        self.batch: Any = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batch = copy.deepcopy(batch) if self.batch is None else self.batch

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        logged = float(trainer.callback_metrics["curvature/sharpness"])
        self.pairs.append((logged, self.exact(pl_module, self.batch)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_eigenvalue_that_overtakes_is_followed() -> None:
    following = Following(lambda module, batch: max(5.0, float(module.w[0].detach()) ** 2))
    monitor = CurvatureMonitor(every_n_epochs=None, every_n_train_steps=20, sharpness_every_n_steps=1)
    train(TwoBlocks, None, [monitor, following], max_epochs=13)
    assert len(following.pairs) == 39
    for logged, exact in following.pairs:
        assert logged == pytest.approx(exact, rel=1e-3)


class Gan(LightningModule):
    """Two networks against each other, trained in turn by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = nn.Linear(2, 6), nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))

    def losses(self, batch: Any) -> tuple[Tensor, Tensor]:
        fake = self.generator(batch[0][:, :2])
        real = functional.softplus(-self.critic(batch[0])).mean()
        return real + functional.softplus(self.critic(fake.detach())).mean(), functional.softplus(
            -self.critic(fake)
        ).mean()

    def curvature_loss(self, batch: Any) -> Tensor:
        return sum(self.losses(batch), torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for place, optimizer in enumerate(cast(Any, self.optimizers())):
            optimizer.zero_grad()
            self.manual_backward(self.losses(batch)[place])
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=0.05) for part in (self.critic, self.generator)]


def gan_curvature(module: Any, batch: Any) -> float:
    twin = copy.deepcopy(module)
    params = list(twin.parameters())
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(twin.curvature_loss(batch), params, create_graph=True)])
    rows = [torch.autograd.grad(one, params, retain_graph=True, materialize_grads=True) for one in slope]
    H = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    return float(torch.linalg.eigvalsh((H + H.T) / 2)[-1])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_sharpness_of_a_gan_is_followed() -> None:
    following = Following(gan_curvature)
    monitor = CurvatureMonitor(every_n_epochs=None, every_n_train_steps=50, sharpness_every_n_steps=1, self_check=False)
    train(Gan, None, [monitor, following], max_epochs=12)
    assert len(following.pairs) == 36
    assert max(abs(logged / exact - 1) for logged, exact in following.pairs) < 0.05


# ── Sparse networks


class Masked(LightningModule):
    """A perceptron whose layers are masked, at random or by magnitude."""

    def __init__(self, share: float, by: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
        prune_by = prune.random_unstructured if by == "random" else prune.l1_unstructured
        for layer in (self.layers[0], self.layers[2]):
            prune_by(layer, "weight", share)  # type: ignore[no-untyped-call]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return functional.cross_entropy(self.layers(batch[0].repeat(1, 11)[:, :64]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@pytest.mark.parametrize("by", ["random", "magnitude"])
@pytest.mark.parametrize("share", [0.8, 0.9, 0.95])
def test_masked_networks_are_not_flagged_and_run_to_their_end(by: str, share: float) -> None:
    ours = [WeightSpectrumMonitor(), SpectralEarlyStopping(stop_on=["correlation_trap"], patience=3, min_epochs=0)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = train(lambda: Masked(share, by), None, ours, max_epochs=8)
    assert model.trainer.current_epoch == 8
    assert all("correlation_trap" not in past.flags for past in ours[0].history)  # type: ignore[attr-defined]
    report = ours[0].report  # type: ignore[attr-defined]
    assert [round(layer.zero_share, 2) for layer in report.layers] == [share, share]


# ── What a step asks of its surroundings


class Penalized(Plain):
    """A penalty on the gradient with respect to the inputs, which the batch brings with it."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0].clone().requires_grad_(), batch[1]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        scores = self.net(batch[0]).tanh()
        (slope,) = torch.autograd.grad(scores.sum(), batch[0], create_graph=True)
        return functional.cross_entropy(scores, batch[1]) + slope.square().mean()


def test_a_batch_that_requires_gradients_is_measured_as_one_whose_step_asks_for_them() -> None:
    class Asked(Penalized):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step((batch[0].clone().requires_grad_(), batch[1]), batch_idx)

    (monitor, said), (expected, _) = compared(Penalized), compared(Asked)
    assert "could not" not in said
    assert len(monitor.history) == 3
    assert monitor.history[-1].summary["sharpness"] == expected.history[-1].summary["sharpness"]


class WithOptions(Plain):
    def training_step(self, batch: Any, **options: Any) -> Any:  # type: ignore[override]
        return functional.cross_entropy(self.net(batch[0]), batch[1])


class WithKeyword(Plain):
    def training_step(self, batch: Any, *, scale: float = 1.0) -> Any:  # type: ignore[override]
        return functional.cross_entropy(self.net(batch[0]), batch[1]) * scale


class AsksForItsLogger(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert isinstance(self.logger, CSVLogger)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("model", [WithOptions, WithKeyword, AsksForItsLogger])
def test_a_step_is_called_as_in_training(model: type[LightningModule], tmp_path: Path) -> None:
    monitor, said = compared(model, options={"logger": CSVLogger(tmp_path)})
    assert "could not" not in said
    assert len(monitor.history) == 3


def test_what_a_step_adds_to_a_callback_of_the_users_own_is_undone() -> None:
    class Recorder(Callback):
        def __init__(self) -> None:
            self.seen: list[int] = []
            self.count = 0

    class Recorded(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            recorder = next(c for c in callbacks(self.trainer) if isinstance(c, Recorder))
            recorder.seen.append(batch_idx)
            recorder.count += 1
            return super().training_step(batch, batch_idx)

    recorders = [Recorder(), Recorder()]
    train(Recorded, callbacks=[recorders[0]])
    train(Recorded, callbacks=[recorders[1], CurvatureMonitor(every_n_epochs=1, num_steps=5)])
    assert recorders[0].seen == recorders[1].seen
    assert recorders[0].count == recorders[1].count == 6


class Leaves(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if not self.training:
            raise SystemExit(3)
        return super().training_step(batch, batch_idx)


def test_a_step_that_leaves_the_program_in_evaluation_mode_does_not_end_the_run() -> None:
    monitor, said = compared(Leaves)
    assert len(monitor.history) == 0
    assert "SystemExit: 3" in said


def fails(batch: Any) -> int:
    raise KeyError("size")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (lambda _: -3, "`batch_size_fn` has to return a number of samples, but returned -3"),
        (lambda _: 2.7, "`batch_size_fn` has to return a number of samples, but returned 2.7"),
        (lambda _: None, "`batch_size_fn` fails on it (TypeError"),
        (fails, "`batch_size_fn` fails on it (KeyError: 'size')"),
    ],
    ids=["negative", "a fraction", "None", "an error"],
)
def test_a_size_that_is_none_is_said_and_the_run_goes_on(size: Callable[[Any], int], words: str) -> None:
    monitor, said = compared(Plain, batch_size_fn=size)
    assert words in said
    assert len(monitor.history) == 0


class Prefetched:
    """A loader whose batches a thread makes ahead, with noise from the global stream of NumPy."""

    def __iter__(self) -> Any:
        ready: queue.Queue[Any] = queue.Queue(2)

        def noisy(items: Any) -> Any:
            time.sleep(0.002)
            xs, ys = zip(*items, strict=True)
            return torch.stack(xs) + torch.from_numpy(np.random.randn(len(xs), 6).astype("float32")), torch.stack(ys)

        def work() -> None:
            for batch in DataLoader(points(), 4, collate_fn=noisy):
                ready.put(batch)
            ready.put(None)

        threading.Thread(target=work, daemon=True).start()
        while (batch := ready.get()) is not None:
            yield batch


def test_a_thread_that_makes_batches_keeps_its_random_numbers() -> None:
    monitor, _ = compared(Plain, Prefetched)
    assert len(monitor.history) == 3


def test_complex_weights_under_adam_have_an_optimizer_sharpness_at_each_measurement() -> None:
    class Complex(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(6, 4, dtype=torch.complex64)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return functional.cross_entropy(self.net(batch[0].to(torch.complex64)).abs(), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    monitor, said = compared(Complex, optimizer_sharpness=True)
    assert "could not" not in said
    assert len(monitor.history) == 3
    assert monitor.history[-1].summary["optimizer_sharpness"] > 0


def test_complex_outputs_are_refused_for_gauss_newton_with_the_way_out() -> None:
    class ComplexOutputs(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(6, 4, dtype=torch.complex64)

        def outputs(self, batch: Any) -> Tensor:
            return cast("Tensor", self.net(batch[0].to(torch.complex64)))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return functional.cross_entropy(self.outputs(batch).abs(), batch[1])

    def by_parts(module: Any, batch: Any) -> Any:
        return torch.view_as_real(module.outputs(batch)), lambda z: functional.cross_entropy(z.norm(dim=-1), batch[1])

    def by_outputs(module: Any, batch: Any) -> Any:
        return module.outputs(batch), lambda z: functional.cross_entropy(z.abs(), batch[1])

    monitor, said = compared(ComplexOutputs, matrix="ggn", ggn_fn=by_outputs)
    assert "pass `ggn_fn=` with `torch.view_as_real` of them" in said
    assert len(monitor.history) == 0
    monitor, said = compared(ComplexOutputs, matrix="ggn", ggn_fn=by_parts)
    assert "could not" not in said
    assert len(monitor.history) == 3
