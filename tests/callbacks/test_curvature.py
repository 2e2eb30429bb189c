"""`CurvatureMonitor`: on what and when it measures, and what it publishes."""

from __future__ import annotations

import copy
import csv
import logging
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fits import curvature_monitor as monitor
from helpers.fits import fit
from helpers.networks import Batch, Classifier, data, quiet_trainer
from helpers.tiny import Batches, Tiny, exact
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional

from lightning_ww.callbacks import CurvatureMonitor
from lightning_ww.callbacks._monitor import budget

MAY_BE_WITHHELD = {
    f"curvature/{name}"
    for estimate in ("negative_mass", "near_zero_mass", "log_pseudodet", "condition", "effective_dimension")
    for name in (estimate, f"{estimate}_error")
} | {f"curvature/{name}" for name in ("num_outliers", "bulk_edge", "outlier_gap", "llc_quadratic")}
SUMMARY = {
    f"curvature/{name}"
    for name in (
        *("sharpness", "sharpness_residual", "lambda_min", "lambda_min_residual", "trace", "trace_stderr"),
        *("num_samples", "batch_size", "num_parameters", "lr_sharpness", "stability_edge", "optimizer_sharpness"),
        *("seconds", "overhead"),
    )
}


def steps(watched: CurvatureMonitor) -> list[int]:
    return [past.step for past in watched.history]


# ── On what it measures ──


@pytest.mark.parametrize("num_batches", [1, 3])
def test_every_measurement_is_of_the_dense_hessian_on_the_first_batches(num_batches: int) -> None:
    watched, batches = monitor(num_steps=60, num_batches=num_batches), Batches()
    fit(batches, watched, model=Tiny(), precision="64-true", max_epochs=2)
    assert steps(watched) == [num_batches - 1, 6, 12]
    kept = [batch for batch, _ in batches.seen[:num_batches]]
    for past in list(watched.history)[:2]:
        values = exact(batches.seen[past.step][1], kept)
        assert past.density.dim == len(values) == 139
        assert past.density.sharpness == pytest.approx(float(values[-1]), rel=1e-8)
        assert past.density.lambda_min == pytest.approx(float(values[0]), rel=1e-4)
        assert (past.summary["num_samples"], past.summary["batch_size"]) == (16 * num_batches, 16)
    assert [past.is_baseline for past in watched.history] == [num_batches == 1, False, False]


def test_own_data_are_measured_instead_and_are_the_same_whatever_the_stream() -> None:
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        loader = data(40, seed=5, batch_size=20, shuffle=True)
        watched, batches = monitor(num_steps=60, data=loader, num_batches=2), Batches()
        fit(batches, watched, model=Tiny(), precision="64-true", max_epochs=1)
        points = [(x.double(), y) for x, y in data(40, seed=5, batch_size=20, shuffle=False)]
        values = exact(batches.seen[0][1], points)  # all forty, so the order does not matter
        assert watched.history[0].density.sharpness == pytest.approx(float(values[-1]), rel=1e-8)
        assert watched.history[0].summary["num_samples"] == 40
        found.append(watched.history[0].density)
    assert torch.equal(found[0].nodes, found[1].nodes)


def test_too_few_own_data_are_an_error() -> None:
    message = "`CurvatureMonitor(data=..., num_batches=3)`: the data have 2 batches."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(monitor(data=data(32), num_batches=3))


def test_an_epoch_with_fewer_batches_than_asked_for_is_said(caplog: pytest.LogCaptureFixture) -> None:
    watched = monitor(num_batches=10)
    fit(watched, max_epochs=2)
    said = "`CurvatureMonitor` measures on 6 batches: an epoch has no more (`num_batches=10`)."
    assert caplog.text.count(said) == 1  # where pytest makes warnings errors, it is a line of the log
    assert steps(watched) == [6, 12]
    assert watched.history[0].summary["num_samples"] == 96


class WithLoss(Tiny):
    def curvature_loss(self, batch: Batch) -> Tensor:
        return 2 * functional.cross_entropy(self(batch[0]), batch[1])


class InDict(Tiny):
    def training_step(self, batch: Batch) -> Any:  # type: ignore[override]
        return {"loss": functional.cross_entropy(self(batch[0]), batch[1]), "other": 1}


@pytest.mark.parametrize(
    ("model", "loss_fn", "factor"),
    [
        (Tiny, None, 1),
        (InDict, None, 1),
        (WithLoss, None, 2),
        (WithLoss, lambda module, batch: 3 * functional.cross_entropy(module(batch[0]), batch[1]), 3),
    ],
    ids=["training_step", "training_step with a dict", "curvature_loss", "loss_fn"],
)
def test_loss_is_loss_fn_then_curvature_loss_then_training_step(model: Any, loss_fn: Any, factor: int) -> None:
    watched, batches = monitor(num_steps=60, loss_fn=loss_fn), Batches()
    fit(batches, watched, model=model(), precision="64-true", max_epochs=1)
    values = exact(batches.seen[0][1], [batches.seen[0][0]])
    assert watched.history[0].density.sharpness == pytest.approx(factor * float(values[-1]), rel=1e-8)


def test_a_block_is_that_of_the_parameters_named() -> None:
    watched, batches = monitor(num_steps=64, params="head.*"), Batches()
    fit(batches, watched, model=Tiny(), precision="64-true", max_epochs=1)
    batch, twin = batches.seen[0]
    for parameter in twin.hidden.parameters():  # type: ignore[union-attr]
        parameter.requires_grad_(False)
    hidden = torch.tanh(twin.hidden(batch[0])).detach()  # type: ignore[operator]
    head = copy.deepcopy(twin.head)
    flat = torch.cat([p.detach().reshape(-1) for p in head.parameters()])  # type: ignore[union-attr]
    H = torch.autograd.functional.hessian(  # type: ignore[no-untyped-call]
        lambda w: functional.cross_entropy(hidden @ w[:48].view(16, 3).T + w[48:], batch[1]), flat
    )
    assert watched.history[0].density.dim == 64
    assert watched.history[0].density.sharpness == pytest.approx(float(torch.linalg.eigvalsh(H)[-1]), rel=1e-8)


class Squared(Tiny):
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return nn.MSELoss()(self(batch[0]), functional.one_hot(batch[1], 16).to(batch[0].dtype))


class Binary(Tiny):
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        targets = functional.one_hot(batch[1], 16).to(batch[0].dtype)
        return functional.binary_cross_entropy_with_logits(self(batch[0]), targets, pos_weight=torch.tensor(3.0))


class ByHand(Tiny):
    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return functional.nll_loss(functional.log_softmax(self(batch[0]), 1), batch[1])


class WithOutputs(ByHand):
    def curvature_outputs(self, batch: Batch) -> Any:
        return self(batch[0]), lambda z: functional.cross_entropy(z, batch[1])


def outputs_by_hand(module: Any, batch: Batch) -> Any:
    return module(batch[0]), lambda z: functional.nll_loss(functional.log_softmax(z, 1), batch[1])


@pytest.mark.parametrize(
    ("model", "ggn_fn"),
    [(Tiny, None), (Squared, None), (Binary, None), (WithOutputs, None), (ByHand, outputs_by_hand)],
    ids=["cross-entropy", "MSELoss", "bce", "curvature_outputs", "ggn_fn"],
)
def test_gauss_newton_is_the_dense_jacobians(model: Any, ggn_fn: Any) -> None:
    watched, batches = monitor(matrix="ggn", ggn_fn=ggn_fn, num_steps=100), Batches()
    fit(batches, watched, model=model(), precision="64-true", max_epochs=1)
    (x, y), twin = batches.seen[0]
    params = list(twin.parameters())
    z = twin(x)
    rows = [torch.autograd.grad(value, params, retain_graph=True) for value in z.view(-1)]
    J = torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])

    def loss(s: Tensor) -> Any:
        vars(twin)["forward"] = lambda _: s.view_as(z)
        return twin.training_step((x, y), 0)

    H = torch.autograd.functional.hessian(loss, z.detach().view(-1))  # type: ignore[no-untyped-call]
    values = torch.linalg.eigvalsh(J.T @ H @ J)
    assert watched.history[0].density.sharpness == pytest.approx(float(values[-1]), rel=1e-8)
    assert watched.history[0].density.trace == pytest.approx(float(values.sum()), rel=0.3)
    assert watched.history[0].engine in ("Gauss–Newton, dual", "Gauss–Newton, double_vjp")


@pytest.mark.parametrize(
    ("model", "ggn_fn", "message"),
    [
        (
            ByHand,
            None,
            '`matrix="ggn"` needs a loss that is one call of `F.cross_entropy`, `F.mse_loss` or '
            "`F.binary_cross_entropy_with_logits`, but there are 0 such calls. Pass `ggn_fn=`, `(pl_module, batch) -> "
            "(outputs, loss_of_outputs)`.",
        ),
        (WithLoss, None, "but it returns something else. Pass `ggn_fn=`"),
        (
            Tiny,
            lambda module, batch: module(batch[0]),
            "`ggn_fn` has to return `(outputs, loss_of_outputs)`: a tensor and a function.",
        ),
    ],
)
def test_gauss_newton_of_a_loss_that_is_not_seen_is_one_warning_and_the_run_goes_on(
    model: Any, ggn_fn: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    watched = CurvatureMonitor(matrix="ggn", ggn_fn=ggn_fn)  # on_error="warn"
    trainer = quiet_trainer(callbacks=[watched], max_epochs=1)
    trainer.fit(model(), data(), data(32, seed=1, shuffle=False))
    (said,) = [record.getMessage() for record in caplog.records if record.name == "lightning_ww"]
    assert message.removesuffix(".") in said
    assert trainer.global_step == 6


# ── When it measures ──


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"every_n_epochs": 1}, [0, 6, 12, 18]),
        ({"every_n_epochs": 2}, [0, 12]),
        ({"every_n_epochs": None, "every_n_train_steps": 5}, [0, 5, 10, 15]),
        ({"every_n_epochs": 5}, [0]),
    ],
)
def test_schedule(arguments: dict[str, Any], expected: list[int]) -> None:
    watched = monitor(**arguments, num_steps=3)
    fit(watched, max_epochs=3)
    assert steps(watched) == expected


def test_an_epoch_cut_short_is_measured_at_its_end() -> None:
    watched = monitor(num_steps=3)
    fit(watched, max_steps=8, max_epochs=-1)
    assert steps(watched) == [0, 6, 8]


def test_fast_dev_run_runs_the_whole_path_once() -> None:
    watched = monitor(every_n_epochs=5)
    fit(watched, fast_dev_run=True)
    assert steps(watched) == [0, 1]
    assert len(watched.history[0].density.nodes) == 4


def test_barebones_is_said_and_measures_nothing() -> None:
    watched = monitor()
    trainer = Trainer(barebones=True, max_epochs=1, accelerator="cpu", callbacks=[watched])
    with pytest.warns(UserWarning, match="`CurvatureMonitor` does nothing under `Trainer\\(barebones=True\\)`"):
        trainer.fit(Tiny(), data(), data(32, seed=1, shuffle=False))
    assert watched.measurement is None


def test_one_warning_when_a_measurement_outlasts_its_epoch(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "SHORT", 0.0)
    fit(monitor(num_steps=200, num_probes=3), model=Tiny(), max_epochs=3)
    said = [
        record.getMessage() for record in caplog.records if "longer than the rest of its epoch" in record.getMessage()
    ]
    assert len(said) == 1
    assert "raise `every_n_epochs` (1)" in said[0]
    assert "lower `num_steps` (200)" in said[0]


def test_between_spectra_the_sharpness_is_followed_and_is_the_dense_hessians(tmp_path: Path) -> None:
    watched, batches = monitor(every_n_epochs=2, sharpness_every_n_steps=2, num_steps=60), Batches()
    seen: dict[int, dict[str, float]] = {}

    class Look(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            seen[trainer.global_step] = {key: float(value) for key, value in trainer.callback_metrics.items()}

    logger = CSVLogger(str(tmp_path), name="", version="")
    fit(batches, watched, Look(), model=Tiny(), precision="64-true", max_epochs=2, logger=logger)
    assert steps(watched) == [0, 12]
    first = batches.seen[0][0]
    for step in (2, 4, 6, 8, 10):
        exactly = float(exact(batches.seen[step][1], [first])[-1])
        assert seen[step]["curvature/sharpness"] == pytest.approx(exactly, rel=0.05)
        assert seen[step]["curvature/sharpness_residual"] <= 0.05 * exactly
        assert seen[step]["curvature/lr_sharpness"] == pytest.approx(0.1 * seen[step]["curvature/sharpness"] / 2)
        assert seen[step]["curvature/trace"] == seen[1]["curvature/trace"]  # the last spectrum's
        assert seen[step + 1]["curvature/sharpness"] == seen[step]["curvature/sharpness"] or step == 10
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["curvature/sharpness"]]
    assert [int(row["step"]) for row in rows] == [0, 1, 3, 5, 7, 9, 11]


def test_a_basis_that_is_not_kept_gives_both_ends_and_no_outliers() -> None:
    kept, not_kept = monitor(num_steps=60), monitor(num_steps=60, storage="none", log_key_prefix="n/")
    fit(kept, not_kept, max_epochs=1)
    for one, other in zip(kept.history, not_kept.history, strict=True):
        assert other.density.sharpness == pytest.approx(one.density.sharpness, rel=1e-3)
        assert "num_outliers" not in other.summary


# ── What it publishes ──


def test_summary_is_in_callback_metrics_and_equals_history() -> None:
    watched = monitor()
    trainer = fit(watched)
    ours = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("curvature")}
    assert SUMMARY <= set(ours) <= SUMMARY | MAY_BE_WITHHELD
    assert watched.measurement is not None
    for key, value in watched.measurement.summary.items():
        assert ours[f"curvature/{key}"] == pytest.approx(value, rel=1e-6)
    assert watched.density is watched.history[-1].density


def test_docstring_lists_every_key() -> None:
    listed = str(CurvatureMonitor.__doc__)
    for key in SUMMARY | MAY_BE_WITHHELD:
        assert f"``{key}``" in listed or ("_residual" in key and "``…_residual``" in listed), key
    for key in (
        "curvature.top_eigenvalues/1",
        "curvature/spectrum",
        "curvature/report",
        "curvature.jsonl",
        "curvature/num_flagged",
        "flags/<trigger>",
    ):
        assert f"``{key}``" in listed


def test_learning_rates_of_the_optimizer_give_the_edge() -> None:
    watched = monitor()
    fit(watched, model=Tiny(), max_epochs=1)
    for past in watched.history:
        assert past.summary["lr_sharpness"] == pytest.approx(0.1 * past.density.sharpness / 2)
        assert past.summary["stability_edge"] == pytest.approx(20)
        assert past.summary["optimizer_sharpness"] == past.summary["lr_sharpness"]


class ByAdam(Tiny):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def test_adams_preconditioner_is_measured_when_asked_for() -> None:
    watched = monitor(optimizer_sharpness=True)
    fit(watched, model=ByAdam(), max_epochs=1)
    assert "optimizer_sharpness" not in watched.history[0].summary  # Adam has no preconditioner yet
    assert watched.history[1].summary["optimizer_sharpness"] > 0
    plain = monitor()
    fit(plain, model=ByAdam(), max_epochs=1)
    assert "optimizer_sharpness" not in plain.history[1].summary


def test_tensorboard_has_scalars_stems_and_a_table(tmp_path: Path) -> None:
    watched = monitor(log_key_prefix="a/")
    fit(watched, logger=TensorBoardLogger(str(tmp_path), name="", version="", prefix="p"))
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {f"p-a/{key}" for key in SUMMARY} <= scalars
    assert "p-a/curvature.top_eigenvalues/1" in scalars
    values = [event.value for event in events.Scalars("p-a/curvature/sharpness")]
    assert values == pytest.approx([past.density.sharpness for past in watched.history])
    assert [event.step for event in events.Scalars("p-a/curvature/sharpness")] == [0, 5, 11]
    (image, *_) = events.Images("p-a/curvature/spectrum")
    assert (image.width, image.height) == (640, 468)
    table = events.Tensors("p-a/curvature/report/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert "| matrix | Hessian, reverse over reverse |" in table
    assert "| samples | 16 |" in table
    assert "| negative_mass | " in table
    assert re.search(
        r"\| log_pseudodet \| (-?[\d.e+]+ ± [\d.e+-]+|– \(its error is [\d.e+]+: raise `num_steps` \(\d+\)\)) \|", table
    )


def test_without_a_logger_nothing_is_written(tmp_path: Path) -> None:
    watched = monitor()
    fit(watched)
    assert len(watched.history) == 3
    assert not list(tmp_path.iterdir())


def test_lightnings_own_callbacks_act_on_it(tmp_path: Path) -> None:
    stopping = EarlyStopping(monitor="curvature/sharpness", mode="max", patience=99, stopping_threshold=-1e9)
    best = ModelCheckpoint(tmp_path, monitor="curvature/sharpness", mode="max", filename="best")
    trainer = fit(stopping, monitor(), best, max_epochs=9, enable_checkpointing=True)
    assert trainer.current_epoch == 1  # the threshold is passed at the first look
    assert (tmp_path / "best.ckpt").exists()


def test_history_is_a_table() -> None:
    watched = monitor()
    fit(watched)
    frame = watched.history.to_pandas()
    assert list(frame["step"]) == [0, 6, 12]
    assert list(frame["sharpness"]) == [past.density.sharpness for past in watched.history]


def test_a_loss_that_asks_the_trainer_to_stop_stops_nothing_when_measured() -> None:
    def loss_fn(module: LightningModule, batch: Batch) -> Tensor:
        module.trainer.should_stop = True
        return functional.cross_entropy(module(batch[0]), batch[1])

    monitor = CurvatureMonitor(every_n_epochs=1, num_steps=3, loss_fn=loss_fn)
    trainer = quiet_trainer(callbacks=[monitor], max_epochs=3)
    trainer.fit(Tiny(), data(), data(shuffle=False))
    assert trainer.current_epoch == 3
    assert len(monitor.history) == 4


class Drawing(Tiny):
    """Its step draws from an iterator of its own."""

    def on_fit_start(self) -> None:
        self.draws = iter(range(100))

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        next(self.draws)
        return super().training_step(batch, batch_idx)


def test_a_step_that_draws_from_an_iterator_is_refused_and_nothing_is_drawn(caplog: pytest.LogCaptureFixture) -> None:
    model = Drawing()
    message = "`training_step` cannot be run without side effects: it draws from an iterator (`draws`)"
    quiet_trainer(callbacks=[CurvatureMonitor()], max_epochs=1).fit(model, data(), data(shuffle=False))
    assert next(model.draws) == 6  # one for each step
    (said,) = [record.getMessage() for record in caplog.records if record.name == "lightning_ww"]
    assert message in said
    model = Drawing()
    watched = CurvatureMonitor(every_n_epochs=1, num_steps=2, loss_fn=lambda m, b: Tiny.training_step(m, b, 0))
    quiet_trainer(callbacks=[watched]).fit(model, data(), data(shuffle=False))
    assert next(model.draws) == 12  # one for each step


class Scheduled(Tiny):
    """Steps a schedule of schedules itself, and writes to its logger's experiment."""

    def on_fit_start(self) -> None:
        logger: Any = self.logger
        self.writer = logger.experiment

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.lr_schedulers().step()  # type: ignore[union-attr]
        self.writer.add_scalar("own", float(loss.detach()), self.global_step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            self.is_half = self.hidden(batch[0]).dtype == torch.bfloat16
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        parts: list[Any] = [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9) for _ in range(2)]
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[4])
        return [optimizer], [{"scheduler": schedule, "interval": "epoch", "frequency": 100}]


def test_nested_schedules_and_a_kept_writer_are_as_without_the_monitor(tmp_path: Path) -> None:
    found = []
    for name, ours in (("without", []), ("with", [CurvatureMonitor(every_n_train_steps=1, num_steps=2)])):
        model = Scheduled()
        trainer = quiet_trainer(callbacks=ours, logger=TensorBoardLogger(str(tmp_path), name=name))
        trainer.fit(model, data(), data(shuffle=False))
        assert model.is_half  # their own autocast is theirs again
        events = EventAccumulator(str(trainer.log_dir)).Reload()
        found.append(([event.step for event in events.Scalars("own")], trainer.optimizers[0].param_groups[0]["lr"]))
    assert found[0] == found[1]


def test_autocast_inside_a_step_is_not_measured_in_half_precision() -> None:
    def half(module: LightningModule, batch: Batch) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return functional.cross_entropy(module(batch[0]), batch[1])

    nodes = []
    for loss_fn in (half, None):
        watched = CurvatureMonitor(every_n_epochs=1, num_steps=4, loss_fn=loss_fn)
        quiet_trainer(callbacks=[watched], max_epochs=1).fit(Tiny(), data(shuffle=False), data(shuffle=False))
        nodes.append(watched.history[0].density.nodes)
    torch.testing.assert_close(*nodes, rtol=1e-6, atol=0)


def test_an_optimizer_without_a_learning_rate_has_its_spectra_without_edges() -> None:
    class Without(Tiny):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            optimizer = super().configure_optimizers()

            class Fixed(torch.optim.Optimizer):
                def __init__(self, params: Any) -> None:
                    super().__init__(params, {})

                def step(self, closure: Any = None) -> Any:
                    return closure()

            del optimizer
            return Fixed(self.parameters())

    watched = CurvatureMonitor(every_n_epochs=1, num_steps=3, sharpness_every_n_steps=1, on_error="raise")
    quiet_trainer(callbacks=[watched]).fit(Without(), data(), data(shuffle=False))
    assert len(watched.history) == 3
    assert "lr_sharpness" not in watched.history[-1].summary


def test_the_sharpness_is_followed_when_parameters_join() -> None:
    class Unfreezing(Tiny):
        def on_train_epoch_start(self) -> None:
            self.hidden.requires_grad_(self.current_epoch > 0)

    watched = CurvatureMonitor(every_n_epochs=1, num_steps=3, sharpness_every_n_steps=1, on_error="raise")
    quiet_trainer(callbacks=[watched], max_epochs=3).fit(Unfreezing(), data(), data(shuffle=False))
    assert [past.density.dim for past in watched.history] == [64, 64, 139, 139]


def test_a_seed_of_any_size_is_taken() -> None:
    watched = CurvatureMonitor(every_n_epochs=1, num_steps=3, seed=2**40 + 1, on_error="raise")
    quiet_trainer(callbacks=[watched]).fit(Tiny(), data(), data(shuffle=False))
    assert len(watched.history) == 3


def test_a_loss_without_a_graph_is_said_in_the_users_words(caplog: pytest.LogCaptureFixture) -> None:
    watched = CurvatureMonitor(loss_fn=lambda m, b: Tiny.training_step(m, b, 0).detach())
    quiet_trainer(callbacks=[watched]).fit(Tiny(), data(), data(shuffle=False))
    assert "the loss is detached from the parameters that are measured, or taken under `no_grad`" in caplog.text
    assert not len(watched.history)


def test_two_monitors_without_a_prefix_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="2 `CurvatureMonitor`s of this Trainer log under the same keys"):
        fit(monitor(num_steps=2), monitor(num_steps=2, matrix="ggn"), max_epochs=1)


# ── Checkpoints ──


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # it is that of the first run
def test_a_resumed_run_has_its_history_and_says_that_its_batches_are_new(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def train(epochs: int, checkpoint: str | None = None) -> CurvatureMonitor:
        watched = monitor(num_steps=5)
        keep = ModelCheckpoint(tmp_path, save_last=True, enable_version_counter=False)
        trainer = quiet_trainer(callbacks=[watched, keep], max_epochs=epochs, enable_checkpointing=True)
        trainer.fit(Classifier(), data(), data(32, seed=1, shuffle=False), ckpt_path=checkpoint)
        return watched

    first = train(2)
    assert "new batches" not in caplog.text
    with caplog.at_level(logging.INFO, logger="pytorch_lightning"):
        resumed = train(3, str(tmp_path / "last.ckpt"))
    assert "`CurvatureMonitor` resumes on new batches: curves may jump at step 12." in caplog.text
    assert steps(resumed) == [0, 6, 12, 18]
    for past, again in zip(first.history, resumed.history, strict=False):
        assert torch.equal(past.density.nodes, again.density.nodes)
        assert past.summary == again.summary
    assert steps(first) == [0, 6, 12]


def test_a_pickled_monitor_drags_neither_model_nor_batches_along() -> None:
    watched = monitor()
    fit(watched)
    assert len(pickle.dumps(watched)) < 30_000
    assert steps(pickle.loads(pickle.dumps(watched))) == [0, 6, 12]


# ── Bad arguments ──


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"matrix": "fisher"}, "`CurvatureMonitor(matrix='fisher')`: expected one of ('hessian', 'ggn')."),
        ({"num_steps": 0}, "`CurvatureMonitor(num_steps=0)`: expected an integer of at least 1."),
        ({"num_probes": 1.5}, "`CurvatureMonitor(num_probes=1.5)`: expected an integer of at least 1."),
        ({"num_batches": 0}, "`CurvatureMonitor(num_batches=0)`: expected an integer of at least 1."),
        ({"data": 3}, "`CurvatureMonitor(data=3)`: expected batches, such as a `DataLoader`, or `None`."),
        (
            {"loss_fn": 3},
            "`CurvatureMonitor(loss_fn=3)`: expected a function `(pl_module, batch) -> loss`, or `None`.",
        ),
        ({"params": []}, "`CurvatureMonitor(params=[])`: it is empty. Leave it out, or pass `None`, for all."),
        ({"params": 3}, "`CurvatureMonitor(params=3)`: expected a string, a list of strings, or `None`."),
        ({"bn_mode": "x"}, "`CurvatureMonitor(bn_mode='x')`: expected one of ('eval', 'train')."),
        ({"self_check": 1}, "`CurvatureMonitor(self_check=1)`: expected a `bool`."),
        (
            {"every_n_epochs": 0},
            "`CurvatureMonitor(every_n_epochs=0)`: expected an integer of at least 1, or `None`.",
        ),
        ({"storage": "x"}, "`CurvatureMonitor(storage='x')`: expected one of ('full', 'half', 'none')."),
        (
            {"sharpness_every_n_steps": 0},
            "`CurvatureMonitor(sharpness_every_n_steps=0)`: expected an integer of at least 1, or `None`.",
        ),
        ({"seed": -1}, "`CurvatureMonitor(seed=-1)`: expected an integer of at least 0."),
        ({"on_error": "x"}, "`CurvatureMonitor(on_error='x')`: expected one of ('warn', 'raise')."),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CurvatureMonitor(**arguments)


def test_a_pattern_that_matches_nothing_is_an_error_before_training() -> None:
    message = (
        "`CurvatureMonitor(params='nothing.*')` matches no trainable parameter. This model has: `hidden.weight`, "
        "`hidden.bias`, `head.weight`, `head.bias`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(monitor(params=["head.*", "nothing.*"]))


# ── Blocks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_blocks_are_logged_as_those_of_the_whole(tmp_path: Path) -> None:
    logger = CSVLogger(str(tmp_path), "", "")
    ours = CurvatureMonitor(1, blocks=["hidden.*", "head.*"], num_steps=8, on_error="raise")
    fit(ours, logger=logger, max_epochs=1)
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("curvature.sharpness/hidden")]
    assert len(rows) == 2
    for row in rows:
        sharp = [float(row[f"curvature.sharpness/{name}"]) for name in ("hidden", "head")]
        assert max(sharp) <= float(row["curvature/sharpness"]) * 1.01
        traces = sum(float(row[f"curvature.trace/{name}"]) for name in ("hidden", "head"))
        assert abs(traces) < 20 * abs(float(row["curvature/trace"])) + 20 * float(row["curvature/trace_stderr"])


def test_a_block_that_matches_nothing_is_an_error_before_training() -> None:
    with pytest.raises(ValueError, match=r"`CurvatureMonitor\(blocks='x.\*'\)` matches no trainable parameter"):
        fit(CurvatureMonitor(blocks=["head.*", "x.*"]), max_epochs=1)


def test_several_batches_show_the_scatter_of_their_gradients_and_one_does_not() -> None:
    several, one = (CurvatureMonitor(1, num_batches=n, num_steps=5, on_error="raise") for n in (3, 1))
    trainer = fit(several, max_epochs=1)
    names = ("gradient_norm", "gradient_variance", "covariance_top", "hessian_variance")
    assert all(several.history[-1].summary[name] > 0 for name in names)
    assert all(f"curvature/{name}" in trainer.callback_metrics for name in names)
    assert several.history[-1].summary["covariance_top"] <= several.history[-1].summary["gradient_variance"]
    fit(one, max_epochs=1)
    assert not set(names) & set(one.history[-1].summary)


@pytest.mark.parametrize("params", ["head.*", None])
def test_parameters_that_are_frozen_on_the_way_do_not_end_the_run(params: str | None) -> None:
    class Freezing(Classifier):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                for part in (self.head,) if params else (self.head, self.hidden):
                    part.requires_grad_(False)

        def training_step(self, batch: Batch, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            return loss if loss.requires_grad else None

    ours = CurvatureMonitor(1, num_steps=3, params=params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = fit(ours, model=Freezing(), max_epochs=3)
    assert trainer.current_epoch == 3
