"""The run is bit-identical with and without our callbacks. Every callback joins `OBSERVERS`."""

from __future__ import annotations

import csv
import logging
import random
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.beside import at_once
from helpers.networks import Busy, Witness, data, quiet_trainer
from pytorch_lightning import Callback, seed_everything
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from lightning_ww import CorrelationTrap, NotLearning, UnderTrained
from lightning_ww.callbacks import (
    CurvatureMonitor,
    GradientMonitor,
    LearningCoefficientMonitor,
    SpectralEarlyStopping,
    WeightSpectrumMonitor,
)

OBSERVERS: dict[str, Callable[[], Sequence[Callback]]] = {
    "weights, each epoch": lambda: [WeightSpectrumMonitor(on_error="raise")],
    "weights, each step, everything": lambda: [
        WeightSpectrumMonitor(every_n_train_steps=1, metrics="all", shuffle="exact", on_error="raise")
    ],
    "curvature, each epoch": lambda: [CurvatureMonitor(every_n_epochs=1, on_error="raise")],
    "curvature, each step, Gauss–Newton, batch norm in training": lambda: [
        CurvatureMonitor(
            every_n_train_steps=1,
            matrix="ggn",
            bn_mode="train",
            optimizer_sharpness=True,
            sharpness_every_n_steps=1,
            num_steps=5,
            on_error="raise",
        )
    ],
    "both": lambda: [
        CurvatureMonitor(every_n_epochs=1, num_batches=3, sharpness_every_n_steps=1, storage="half", on_error="raise"),
        WeightSpectrumMonitor(on_error="raise"),
    ],
    "gradients, each step, everything": lambda: [
        GradientMonitor(every_n_train_steps=1, metrics="all", on_error="raise")
    ],
    "gradients, weights and curvature": lambda: [
        GradientMonitor(on_error="raise"),
        WeightSpectrumMonitor(on_error="raise"),
        CurvatureMonitor(every_n_epochs=1, num_steps=5, on_error="raise"),
    ],
    "learning coefficient": lambda: [
        LearningCoefficientMonitor(
            1, num_chains=2, num_draws=2, num_burnin=1, num_batches=2, step_size=1e-6, on_error="raise"
        )
    ],
    "weights in the background": lambda: [WeightSpectrumMonitor(execution="background", on_error="raise")],
    "weights and stopping": lambda: [
        SpectralEarlyStopping(stop_on=["rank_collapse"], min_epochs=99),
        WeightSpectrumMonitor(on_error="raise"),
    ],
    "all triggers, with the user's own function": lambda: [
        SpectralEarlyStopping(stop_on=["over_trained", "sharpness", "plateau", "instability"], min_epochs=99),
        CurvatureMonitor(every_n_epochs=1, on_flag=print, on_error="raise"),
        WeightSpectrumMonitor(
            triggers=[
                CorrelationTrap(enter=0.0, leave=0.0),
                UnderTrained(enter=0.0, floors=0.0),
                NotLearning(enter=9.0),
            ],
            on_flag=print,
            on_error="raise",
        ),
    ],
}

SLOW: dict[str, Callable[[], Sequence[Callback]]] = {
    "landscape": lambda: [CurvatureMonitor(every_n_epochs=9, landscape="end", num_steps=4, on_error="raise")],
}
"""Those that join one run only."""

RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulation and clipping": {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5},
    "bfloat16 by autocast": {"precision": "bf16-mixed"},
    "no validation": {"limit_val_batches": 0},
    "TensorBoard, where pictures are drawn": {"draws": True},
    "pictures in a process beside training": {"draws": True, "beside": True},
    "validation within the epoch": {"val_check_interval": 0.5},
    "float64, where our copies could be the weights themselves": {"precision": "64-true"},
}


def run(callbacks: Sequence[Callback], directory: Path, *, draws: bool = False, **arguments: Any) -> dict[str, Any]:
    """Train, and return everything that a user could compare."""
    seed_everything(0, verbose=False)
    model, witness = Busy(), Witness()
    loggers: list[Any] = [CSVLogger(str(directory), name="", version="")]
    loggers += [TensorBoardLogger(str(directory), name="", version="tb")] if draws else []
    trainer = quiet_trainer(callbacks=[*callbacks, witness], logger=loggers, max_epochs=3, **arguments)
    trainer.fit(model, data(), data(32, seed=1, shuffle=False))
    file = directory / "metrics.csv"
    lines = file.read_text().splitlines() if file.exists() else []  # none under `fast_dev_run`
    rows = [{k: v for k, v in row.items() if v and not k.startswith(Witness.OURS)} for row in csv.DictReader(lines)]
    return {
        "seen": witness.seen,
        "weights": model.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict(),
        "losses": model.losses,
        "held": {k: list(v) if k == "graphs" else v for k, v in model.seen.items()},
        "counts": model.counts.tolist(),
        "meter": vars(model.meter),
        "census": dict(model.census),
        "slotted": model.slotted.total,
        "tape": bytes(model.tape),
        "critic": model.critics[0].state_dict(),
        "leaf": model.leaves[0].grad,
        "lr": [group["lr"] for group in trainer.optimizers[0].param_groups],
        "fired": dict(model.fired),
        "logged": [row for row in rows if set(row) - {"epoch", "step"}],
        "metrics": {k: v for k, v in trainer.callback_metrics.items() if not k.startswith(Witness.OURS)},
        "random": (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()),  # type: ignore[index]
        "filters": list(warnings.filters),
        "logging": (logging.root.level, len(logging.root.handlers)),
        "loops": trainer.fit_loop.state_dict(),
    }


def assert_identical(a: Any, b: Any, where: str = "run") -> None:
    """Equal to the last bit, whatever it is; the message says where it is not."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_identical(a[key], b[key], f"{where} → {key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_identical(x, y, f"{where} → {i}")
    else:
        assert a == b, where


PAIRS = [*((observers, arguments) for arguments in RUNS for observers in OBSERVERS), *((one, "plain") for one in SLOW)]


@pytest.mark.parametrize(("observers", "arguments"), PAIRS)
def test_run_is_bit_identical_with_and_without_us(
    observers: str, arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dict(RUNS[arguments])
    if options.pop("beside", False):
        at_once(monkeypatch)
    without = run([], tmp_path / "without", **options)
    callbacks = (OBSERVERS | SLOW)[observers]()
    watched = run(callbacks, tmp_path / "with", **options)
    assert_identical(without, watched)
    assert len(without["seen"]) > 20
    for callback in callbacks:
        if isinstance(callback, WeightSpectrumMonitor):
            assert len(callback.history) >= 4  # it did measure, and every layer
            assert callback.report is not None
            assert len(callback.report.layers) == 6
        if isinstance(callback, GradientMonitor):
            assert len(callback.history) >= 4
            assert callback.history[-1].summary["norm"] > 0
        if isinstance(callback, LearningCoefficientMonitor):
            assert len(callback.history) >= 3
        if isinstance(callback, CurvatureMonitor):
            assert len(callback.history) >= (1 if observers in SLOW else 3)
            assert (callback.loss_landscape is not None) == (observers in SLOW)
            assert callback.density is not None


def settings(rng: random.Random) -> dict[str, Any]:
    """Random settings of a Trainer."""
    choices: dict[str, list[Any]] = {
        "accumulate_grad_batches": [1, 1, 2, 3],
        "gradient_clip_val": [None, 0.1],
        "precision": ["32-true", "32-true", "bf16-mixed", "64-true", "bf16-true"],
        "limit_train_batches": [1.0, 0.5, 2],
        "limit_val_batches": [1.0, 0, 1],
        "val_check_interval": [None, 0.5, 1],
        "check_val_every_n_epoch": [1, 2],
        "num_sanity_val_steps": [0, 2],
        "log_every_n_steps": [1, 7, 50],
        "detect_anomaly": [False, False, True],
        "inference_mode": [True, False],
        "reload_dataloaders_every_n_epochs": [0, 1],
        "max_time": [None, "00:01:00:00"],
        "min_epochs": [None, 2],
        "fast_dev_run": [False] * 9 + [2],
        "overfit_batches": [0.0] * 4 + [2],
    }
    return {name: rng.choice(values) for name, values in choices.items()}


def monitors(rng: random.Random) -> Sequence[Callback]:
    """Random monitors."""
    own: list[Callback] = []
    if rng.random() < 0.7:
        own.append(
            CurvatureMonitor(
                every_n_epochs=rng.choice((1, 2)),
                every_n_train_steps=rng.choice((None, 1, 4)),
                num_steps=rng.choice((1, 6)),
                num_probes=rng.choice((1, 2)),
                num_batches=rng.choice((1, 2, 5)),
                matrix=rng.choice(("hessian", "ggn")),
                storage=rng.choice(("full", "half", "none")),
                mode=rng.choice(("eval", "train")),
                sharpness_every_n_steps=rng.choice((None, 1, 2)),
                self_check=rng.choice((True, False)),
                panels=False,
            )
        )
    if rng.random() < 0.7 or not own:
        own.append(WeightSpectrumMonitor(every_n_train_steps=rng.choice((None, 2)), panels=rng.random() < 0.2))
    if rng.random() < 0.3 and any(isinstance(callback, WeightSpectrumMonitor) for callback in own):
        own.append(SpectralEarlyStopping(stop_on=["rank_collapse"], min_epochs=99))
    rng.shuffle(own)
    return own


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, 300, 20))
def test_runs_with_300_random_settings_are_bit_identical(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 20):
        chosen = settings(random.Random(seed))
        without = run([], tmp_path / f"{seed}-without", **chosen)
        watched = run(monitors(random.Random(seed)), tmp_path / f"{seed}-with", **chosen)
        assert_identical(without, watched, f"seed {seed}")


def test_the_comparison_sees_a_disturbance(tmp_path: Path) -> None:
    class Careless(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            torch.rand(1)

    without = run([], tmp_path / "without")
    with pytest.raises(AssertionError, match="random"):
        assert_identical(without, run([Careless()], tmp_path / "with"))
