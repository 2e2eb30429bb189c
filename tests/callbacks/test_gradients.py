"""`GradientMonitor` in fits: its numbers against gradients that another callback keeps, its keys, and what it bears."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from helpers.fits import fit
from helpers.networks import Classifier, Growing, data, quiet_trainer
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins import MixedPrecision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_ww.callbacks import GradientMonitor, SpectralEarlyStopping

SUMMARY = {
    *("norm", "highest_norm", "num_nonfinite_steps", "clip_factor", "update_ratio", "zero_share", "nonfinite_share"),
    *("weight_norm", "weight_max", "num_flagged", "seconds", "overhead"),
}


def monitor(**arguments: Any) -> GradientMonitor:
    return GradientMonitor(**({"on_error": "raise"} | arguments))


class Gradients(Callback):
    """The gradients before each step, and the weights before and after it."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.layers: list[dict[str, float]] = []
        self.ratios: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.layers.append(
            {
                name: float(
                    torch.cat([p.grad.flatten() for p in part.parameters() if p.grad is not None]).double().norm()
                )
                for name, part in pl_module.named_children()
                if any(p.grad is not None for p in part.parameters())
            }
        )
        self.norms.append(sum(norm**2 for norm in self.layers[-1].values()) ** 0.5)
        self._before = [p.detach().clone().double() for p in pl_module.parameters()]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not self.norms:
            return
        now = [p.detach().double() for p in pl_module.parameters()]
        pairs = zip(now, self._before, strict=True)
        moved = sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5
        self.ratios.append(moved / sum(float(a.square().sum()) for a in now) ** 0.5)


def test_each_report_is_that_of_the_last_step_and_the_highest_since_the_last_report() -> None:
    ours, seen = monitor(every_n_epochs=None, every_n_train_steps=3), Gradients()
    fit(ours, seen, max_epochs=2)
    assert [past.step for past in ours.history] == [0, 3, 6, 9, 12]
    for past in list(ours.history)[1:]:
        last, since = past.step - 1, slice(past.step - 3, past.step)
        assert past.summary["norm"] == pytest.approx(seen.norms[last], rel=1e-5)
        assert past.summary["highest_norm"] == pytest.approx(max(seen.norms[since]), rel=1e-5)
        assert past.summary["update_ratio"] == pytest.approx(seen.ratios[last], rel=1e-4)
        assert past.summary["clip_factor"] == pytest.approx(1, rel=1e-6)
        for layer in past.layers:
            assert past.value(layer, "norm") == pytest.approx(seen.layers[last][layer], rel=1e-5)
            highest = max(step[layer] for step in seen.layers[since])
            assert past.value(layer, "highest_norm") == pytest.approx(highest, rel=1e-5)


def test_it_is_the_gradient_before_clipping_and_the_factor_is_that_of_the_clipping() -> None:
    ours, seen = monitor(every_n_train_steps=1), Gradients()
    fit(ours, seen, max_epochs=1, gradient_clip_val=0.25)
    for past, norm in zip(list(ours.history)[1:], seen.norms, strict=True):
        assert past.summary["norm"] == pytest.approx(norm, rel=1e-5)
        assert past.summary["clip_factor"] == pytest.approx(min(1, 0.25 / (norm + 1e-6)), rel=1e-4)


def test_accumulated_gradients_are_seen_once_a_step() -> None:
    ours, seen = monitor(every_n_train_steps=1), Gradients()
    fit(ours, seen, max_epochs=1, accumulate_grad_batches=3)
    assert len(seen.norms) == 2
    assert [past.summary.get("norm") for past in ours.history] == [
        None,
        *(pytest.approx(n, rel=1e-5) for n in seen.norms),
    ]


@pytest.mark.parametrize("fused", [False, True])
def test_the_scale_of_mixed_precision_is_taken_out_also_where_the_optimizer_does_so_itself(fused: bool) -> None:
    class Scaled(Classifier):
        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3, fused=fused)

    def run(**options: Any) -> Any:
        seed_everything(0, verbose=False)
        ours = monitor(every_n_train_steps=1)
        trainer = quiet_trainer(callbacks=[ours], max_epochs=1, **options)
        trainer.fit(Scaled(), data(shuffle=False), data(32, seed=1, shuffle=False))
        return ours

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    plain, scaled = run(), run(plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    for a, b in zip(list(plain.history)[1:], list(scaled.history)[1:], strict=True):
        assert b.summary["norm"] == pytest.approx(a.summary["norm"], rel=2e-2)  # float16's own rounding
        assert b.summary["clip_factor"] == pytest.approx(1, rel=1e-3)


class Two(Classifier):
    """Two optimizers by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        both: Any = self.optimizers()
        first, second = both
        for optimizer in (first, second):
            optimizer.zero_grad()
        x, y = batch
        self.manual_backward(nn.functional.cross_entropy(self(x), y))
        first.step()
        second.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.hidden, self.head)]


def test_several_optimizers_by_hand_are_all_seen() -> None:
    ours, seen = monitor(every_n_train_steps=4), Gradients()
    fit(ours, seen, model=Two(), max_epochs=1)
    for past in list(ours.history)[1:]:
        assert past.summary["norm"] == pytest.approx(seen.norms[past.step - 1], rel=1e-5)
        assert past.summary["update_ratio"] > 0


def test_keys_are_those_of_the_docstring(tmp_path: Path) -> None:
    ours, logger = monitor(metrics="all"), TensorBoardLogger(str(tmp_path))
    trainer = fit(ours, max_epochs=3, logger=logger)
    keys = {key.removeprefix("gradients/") for key in trainer.callback_metrics if key.startswith("gradients")}
    assert keys == SUMMARY
    assert all(torch.isfinite(value) for value in trainer.callback_metrics.values())
    for key in SUMMARY:
        assert f"gradients/{key}" in (GradientMonitor.__doc__ or "").replace(
            "``gradients/seconds``, ``", "``gradients/seconds``, ``"
        )
    events = EventAccumulator(str(logger.log_dir), size_guidance={"images": 0}).Reload()
    tags = events.Tags()
    assert {"gradients.norm/hidden", "gradients.weight_max/head", "flags/vanishing_gradients"} <= set(tags["scalars"])
    assert {"gradients.maps/norm", "gradients.maps/zero_share"} <= set(tags["images"])
    assert "gradients/report/text_summary" in tags["tensors"]


def test_a_resumed_run_goes_on_with_its_history(tmp_path: Path) -> None:
    def run(epochs: int, ckpt: str | None = None) -> tuple[Trainer, Any]:
        seed_everything(0, verbose=False)
        ours = monitor()
        trainer = quiet_trainer(max_epochs=epochs, callbacks=[ours], logger=CSVLogger(str(tmp_path)))
        trainer.fit(Classifier(), data(shuffle=False), data(32, shuffle=False), ckpt_path=ckpt)
        return trainer, ours

    trainer, _ = run(2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    _, second = run(4, str(tmp_path / "a.ckpt"))
    _, whole = run(4)
    assert [past.step for past in second.history] == [past.step for past in whole.history]
    for a, b in zip(second.history, whole.history, strict=True):
        assert a.summary.get("norm") == pytest.approx(b.summary.get("norm"))


def test_a_network_that_grows_is_measured_as_it_is_and_an_unused_one_says_so() -> None:
    ours, model = monitor(), Growing()
    fit(ours, model=model, max_epochs=4)
    assert ours.report is not None
    assert [past.layers for past in ours.history] == [
        *[("hidden", "head")] * 2,
        ("hidden", "head", "late"),
        *[("hidden", "head")] * 2,
    ]
    unused: Any = Classifier()
    unused.more = nn.Linear(3, 3)
    fit(second := monitor(), model=unused, max_epochs=1)
    assert second.report is not None
    assert second.report["more"].reasons["norm"].startswith("no gradient has reached it")


class Spoiled(Classifier):
    """The second step has an infinite gradient, which is cut off."""

    def on_after_backward(self) -> None:
        gradient: Any = self.head.weight.grad
        if self.trainer.global_step == 1:
            gradient[0, 0] = float("inf")

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        for parameter in self.parameters():
            gradient: Any = parameter.grad
            gradient.nan_to_num_(0, 0, 0)


def test_a_gradient_that_is_not_finite_is_counted_and_the_run_goes_on() -> None:
    ours = monitor(every_n_train_steps=1)
    trainer = fit(ours, model=Spoiled(), max_epochs=1)
    assert [past.summary.get("num_nonfinite_steps") for past in ours.history][:4] == [None, 0, 1, 0]
    assert "norm" not in ours.history[2].summary
    assert ours.history[2].summary["nonfinite_share"] > 0
    assert torch.isfinite(trainer.callback_metrics["gradients/norm"])


@pytest.mark.filterwarnings("ignore:.training_step. returned")
def test_frozen_networks_are_one_warning_and_the_run_goes_on() -> None:
    class Frozen(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            return None

    model = Frozen().requires_grad_(False)
    with pytest.warns(UserWarning, match="No parameter of this Frozen requires a gradient"):
        fit(GradientMonitor(), model=model, max_epochs=1)


class Deep(Classifier):
    """Twelve layers, registered after the last one: the gradient vanishes through sigmoids, and grows through steep sines."""

    ACTS: ClassVar[dict[str, Any]] = {"vanishing": torch.sigmoid, "exploding": torch.sin, "healthy": torch.relu}

    def __init__(self, kind: str) -> None:
        super().__init__(lr=1e-3)
        self.kind = kind
        self.blocks = nn.ModuleList(nn.Linear(32, 32) for _ in range(12))
        gain = {"vanishing": 1.0, "exploding": 6.0, "healthy": 2.0**0.5}[kind]
        for block in self.blocks:
            nn.init.normal_(block.weight, std=gain / 32**0.5)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.hidden(x))
        for block in self.blocks:
            hidden = self.ACTS[self.kind](block(hidden))
        return torch.as_tensor(self.head(hidden))


@pytest.mark.parametrize("kind", ["vanishing", "exploding", "healthy"])
def test_gradients_that_vanish_or_explode_over_depth_are_flagged_in_real_training(kind: str) -> None:
    seed_everything(0, verbose=False)
    ours = GradientMonitor()
    options: dict[str, Any] = {"max_epochs": 3}
    if kind == "healthy":
        fit(ours, model=Deep(kind), **options)
        assert not any(past.flags.get(name) for past in ours.history for name in past.flags)
        return
    with pytest.warns(UserWarning, match=f"{kind}_gradients"):
        fit(ours, model=Deep(kind), **options)
    number = {"vanishing": 2, "exploding": 1}[kind]  # of the report: the first needs two in a row
    flagged = ours.history[number].flags[f"{kind}_gradients"]
    assert "blocks.0" in flagged
    assert "head" not in flagged
    other = {"vanishing": "exploding", "exploding": "vanishing"}[kind]
    assert not ours.history[number].flags.get(f"{other}_gradients")


@pytest.mark.filterwarnings("ignore:.*vanishing_gradients")
def test_vanishing_gradients_can_stop_a_run() -> None:
    seed_everything(0, verbose=False)
    stopping = SpectralEarlyStopping("vanishing_gradients", patience=2, min_epochs=0)
    trainer = fit(stopping, GradientMonitor(), model=Deep("vanishing"), max_epochs=9)
    assert stopping.stopped_epoch == 2
    assert trainer.current_epoch == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ["nrm"]}, r"`GradientMonitor\(metrics="),
        ({"layers": []}, r"`GradientMonitor\(layers="),
        ({"every_n_epochs": 0}, r"`GradientMonitor\(every_n_epochs=0\)`"),
        ({"max_logged_layers": 0}, r"`GradientMonitor\(max_logged_layers=0\)`"),
    ],
)
def test_unfit_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientMonitor(**arguments)
    with pytest.raises(ValueError, match=r"`GradientMonitor\(layers='x'\)` matches no layer"):
        fit(GradientMonitor(layers="x"), max_epochs=1)


class Adversaries(Two):
    """The first steps before the second's backward pass, which adds to its gradients."""

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        both: Any = self.optimizers()
        x, y = batch
        for optimizer in both:
            optimizer.zero_grad()
        self.manual_backward(nn.functional.cross_entropy(self(x), y))
        both[0].step()
        self.manual_backward(nn.functional.cross_entropy(self(x), (y + 1) % 2))
        both[1].step()


def test_without_clipping_the_factor_is_one_whatever_another_backward_pass_adds() -> None:
    ours = monitor(every_n_train_steps=2)
    fit(ours, model=Adversaries(), max_epochs=2)
    for past in list(ours.history)[1:]:
        assert past.summary["clip_factor"] == pytest.approx(1, rel=1e-6)
        assert past.summary["highest_norm"] >= past.summary["norm"] * (1 - 1e-6)


def test_the_update_of_a_step_with_several_evaluations_is_that_of_the_whole() -> None:
    class Second(Classifier):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), max_iter=4, lr=0.5)

    ours = monitor(every_n_train_steps=1)
    before: list[list[torch.Tensor]] = []

    class Starts(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            before.append([p.detach().clone().double() for p in pl_module.parameters()])

    model = Second()
    fit(ours, Starts(), model=model, max_epochs=1)
    after = [*before[1:], [p.detach().double() for p in model.parameters()]]
    for past, old, now in zip(list(ours.history)[1:], before, after, strict=True):
        moved = sum(float((a - b).square().sum()) for a, b in zip(now, old, strict=True)) ** 0.5
        expected = moved / sum(float(a.square().sum()) for a in now) ** 0.5
        assert past.summary["update_ratio"] == pytest.approx(expected, rel=1e-4)


def test_a_layer_that_is_replaced_and_a_weight_that_is_unfrozen_are_measured() -> None:
    class Changing(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.hidden.weight.requires_grad_(False)

        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                self.hidden.weight.requires_grad_(True)
                self.head = nn.Linear(self.head.in_features, self.head.out_features)
                optimizer: Any = self.trainer.optimizers[0]
                optimizer.param_groups[0]["params"] = list(self.parameters())

    model: Any = Changing()
    ours = monitor()
    fit(ours, model=model, max_epochs=2)
    assert ours.report is not None
    assert ours.report["hidden"].num_elements == sum(p.numel() for p in model.hidden.parameters())
    assert all(layer.norm is not None for layer in ours.report.layers)


def test_no_hook_is_left_after_an_error_of_the_users() -> None:
    class Failing(Classifier):
        def backward(self, loss: torch.Tensor, *_: Any, **__: Any) -> None:
            raise KeyError("mine")

    model = Failing()
    with pytest.raises(KeyError, match="mine"):
        fit(monitor(), model=model, max_epochs=1)
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())
    trainer = fit(monitor(every_n_train_steps=1), max_epochs=1)
    optimizer: Any = trainer.optimizers[0]
    assert not optimizer._optimizer_step_post_hooks
