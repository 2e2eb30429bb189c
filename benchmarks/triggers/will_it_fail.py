"""Suite A: which signal says that a run will fail, how early, and how often it says so of a healthy run?

Each run is a Lightning fit with our monitors, which stop nothing. A line of JSON for each run is added to a file in
`--folder`; runs that are there already are not repeated. `triggers_page.py` writes `docs/triggers.md` from it.
`--small` takes one seed of each setting and six epochs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import declared
import numpy as np
import torch
from declared import SETTINGS
from pytorch_lightning import Callback, LightningModule, Trainer
from tasks import Task, layers_of

from lightning_ww import (
    CorrelationTrap,
    Instability,
    Nonfinite,
    NotLearning,
    OverTrained,
    Plateau,
    RankCollapse,
    Sharpness,
    UnderTrained,
)
from lightning_ww.callbacks import CurvatureMonitor, GradientMonitor, WeightSpectrumMonitor

ALL = (
    *(Nonfinite(), RankCollapse(), CorrelationTrap(), OverTrained(), UnderTrained(), NotLearning()),
    *(Plateau(), Instability()),
)
CURVATURE = ("sharpness", "lr_sharpness", "negative_mass")


class Recorder(Callback):
    """The signals that need no spectrum, epoch by epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.first = 0  # of this epoch
        self.before: list[torch.Tensor] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        self.first = len(self.losses)
        self.before = [weight.detach().clone() for weight in layers_of(pl_module)]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:  # noqa: D102
        grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(grads)))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:  # noqa: D102
        self.losses.append(float(outputs["loss"]))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        losses, norms = np.array(self.losses), np.array(self.norms)
        past, now = losses[: self.first][-100:], losses[self.first :]
        spread = past.std() if past.size > 1 else np.nan
        ratios = [
            float((weight.detach() - old).norm() / old.norm().clamp_min(1e-12))
            for weight, old in zip(layers_of(pl_module), self.before, strict=True)
        ]
        metrics = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(("val", "test"))
        }
        self.epochs.append(
            metrics
            | {
                "loss": float(now.mean()),
                "loss z-score": float((now.max() - past.mean()) / spread) if past.size > 1 else float("nan"),
                "gradient norm": float(norms[self.first :].mean()),
                "gradient spike": float(norms[self.first :].max() / np.median(norms)),
                "update / weight": max(ratios),
            }
        )


def run(name: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train, and return what was seen."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    setting = next(one for one in SETTINGS if one.name == name)
    task = Task(setting, seed)
    recorder = Recorder()
    weights = WeightSpectrumMonitor(metrics="all", triggers=ALL, panels=False, execution="sync")
    curvature = CurvatureMonitor(
        1, num_steps=6, triggers=[Sharpness()], self_check=False, panels=False, execution="sync"
    )
    gradients = GradientMonitor(panels=False, execution="sync")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[recorder, weights, curvature, gradients],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    began = time.perf_counter()
    trainer.fit(task)
    return {
        "setting": name,
        "seed": seed,
        "chance": task.chance,
        "epochs": recorder.epochs,
        "weights": [summed_up(past) for past in weights.history][1:],
        "curvature": [{key: past.summary.get(key) for key in CURVATURE} for past in curvature.history][1:],
        "fired": [list(past.fired) for past in weights.history][1:],
        "flagged": [{trigger: len(layers) for trigger, layers in past.flags.items()} for past in weights.history][1:],
        "curvature fired": [list(past.fired) for past in curvature.history][1:],
        "gradients fired": [list(past.fired) for past in gradients.history][1:],
        "from start": {trigger: list(layers) for trigger, layers in weights.history[0].from_start.items()},
        "seconds": time.perf_counter() - began,
        "seconds of weights": sum(past.summary["seconds"] for past in weights.history),
        "seconds of curvature": sum(past.summary["seconds"] for past in curvature.history),
        "share of gradients": gradients.history[-1].summary["overhead"],
    }


def summed_up(past: Any) -> dict[str, list[float]]:
    """Least, mean and largest of each metric over the layers."""
    found = {}
    for metric in declared.METRICS:
        known = [value for layer in past.layers if (value := past.value(layer, metric)) is not None]
        if known:
            found[metric] = [min(known), float(np.mean(known)), max(known)]
    return found


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one seed, six epochs")
    parser.add_argument("--folder", type=Path, default=Path("runs/triggers"), help="where results go")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many runs at a time")
    arguments = parser.parse_args()
    seeds, epochs = (1, 6) if arguments.small else (declared.SEEDS, declared.EPOCHS)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    file = arguments.folder / ("will_it_fail_small.jsonl" if arguments.small else "will_it_fail.jsonl")
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {(one["setting"], one["seed"]) for one in done}
    missing = [(s.name, seed, epochs) for seed in range(seeds) for s in SETTINGS if (s.name, seed) not in known]
    began = time.perf_counter()
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool, file.open("a") as out:
        for found in pool.map(run, *zip(*missing, strict=True)) if missing else ():
            out.write(json.dumps(found) + "\n")
            out.flush()
            best = max(one["test_accuracy"] for one in found["epochs"])
            last = found["epochs"][-1]["test_accuracy"]
            fired = sorted({name for some in (*found["fired"], *found["curvature fired"]) for name in some})
            print(
                f"{found['setting']}, seed {found['seed']}: best {best:.3f}, last {last:.3f}, fired {fired}", flush=True
            )
    print(f"{len(missing)} runs in {(time.perf_counter() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
