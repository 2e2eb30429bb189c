"""Watch the weights and the loss of two small networks that learn scikit-learn's digits, then say what was seen.

The first is healthy. The second's middle layer is over-regularized: its rank collapses, and training stops.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ww.callbacks import (
    CurvatureMonitor,
    GradientMonitor,
    LearningCoefficientMonitor,
    SpectralEarlyStopping,
    WeightSpectrumMonitor,
)

Batch = tuple[Tensor, Tensor]


class Digits(LightningModule):
    """A perceptron of three layers; ``l2`` times the squared weights of the middle one is added to its loss."""

    def __init__(self, l2: float = 0.0) -> None:
        super().__init__()
        self.l2 = l2
        self.encoder = nn.Linear(64, 256)
        self.middle = nn.Linear(256, 128)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        hidden = torch.relu(self.middle(torch.relu(self.encoder(x))))
        return torch.as_tensor(self.head(hidden))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: D102
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y) + self.l2 * self.middle.weight.square().sum()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: D102
        x, y = batch
        self.log("val_accuracy", (self(x).argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:  # noqa: D102
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def loaders(seed: int = 0) -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    """1,400 digits to learn from and 397 to be judged by."""
    x, y = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y))
    parts = torch.utils.data.random_split(data, [1400, 397], torch.Generator().manual_seed(seed))
    return DataLoader(parts[0], batch_size=32, shuffle=True), DataLoader(parts[1], batch_size=397)


def train(name: str, l2: float, epochs: int, logs: str) -> None:
    """Train one network under TensorBoard's run ``name``, and say what was seen."""
    seed_everything(0, verbose=False)
    training, validation = loaders()
    monitor, curvature = WeightSpectrumMonitor(), CurvatureMonitor(every_n_epochs=5, landscape="end")
    gradients, chains = GradientMonitor(), LearningCoefficientMonitor(num_chains=2, localization=100.0)
    stopping = SpectralEarlyStopping(stop_on=["rank_collapse", "correlation_trap"], patience=3)
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[monitor, curvature, gradients, *([] if l2 else [chains]), stopping],
        logger=TensorBoardLogger(logs, name=name),
        accelerator="cpu",
        log_every_n_steps=10,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
    )
    print(f"\nTraining the {name} network …")
    trainer.fit(Digits(l2), training, validation)
    accuracy = float(trainer.callback_metrics["val_accuracy"])
    print(f"It trained for {trainer.current_epoch} epochs; {100 * accuracy:.1f} % of the validation digits are right.")
    print("From the first measurement to the last:")
    print(describe(monitor))
    print(describe_curvature(curvature))
    print(describe_gradients(gradients))
    if chains.found is not None:
        print(describe_chains(chains))
    if stopping.stopping_reason_message:
        print(f"  Stopped early. {stopping.stopping_reason_message}")


def describe(monitor: WeightSpectrumMonitor) -> str:
    """What the monitor saw between its first and its last measurement, in words."""
    first, last = monitor.history[0], monitor.history[-1]
    lines = []
    for layer in last.layers:
        numbers = []
        for metric in ("alpha", "rand_distance", "sv_min", "distance_from_init"):
            before, after = first.value(layer, metric), last.value(layer, metric)
            if before is not None and after is not None:
                numbers.append(f"{metric} {before:.3g} → {after:.3g}")
        flags = [trigger for trigger, layers in last.flags.items() if layer in layers]
        lines.append(f"  {layer:8} {', '.join(numbers)}" + (f"   FLAGGED: {', '.join(flags)}" if flags else ""))
    learned = last.summary["rand_distance"] / first.summary["rand_distance"]
    lines.append(f"  The spectra left those of shuffled weights behind: rand_distance grew {learned:.0f}-fold.")
    if not last.flags:
        lines.append("  No layer shows a collapsed rank or a trap.")
    lines.append(f"  Measuring took {100 * last.summary['overhead']:.0f} % of the training time.")
    return "\n".join(lines)


def describe_curvature(monitor: CurvatureMonitor) -> str:
    """What the spectrum of the loss's Hessian was at first and at last, in words."""
    first, last = monitor.history[0].summary, monitor.history[-1].summary

    def between(name: str) -> str:
        return f"{first[name]:.3g} → {last[name]:.3g}"

    ratio = last["optimizer_sharpness"]
    where = "below its edge of stability, which is at 1" if ratio < 1 else "beyond its edge of stability, which is at 1"
    return (
        f"  The loss's Hessian: sharpness {between('sharpness')}, trace {between('trace')}, "
        f"smallest eigenvalue {between('lambda_min')}.\n"
        f"  The optimizer stands at {ratio:.2g}, {where}. "
        f"Measuring took {100 * last['overhead']:.0f} % of the training time."
    )


def describe_gradients(monitor: GradientMonitor) -> str:
    """The gradients at the last step, in words."""
    last = monitor.history[-1]
    norms = ", ".join(f"{layer} {last.value(layer, 'norm'):.2g}" for layer in last.layers)
    return f"  Gradients at the last step: {norms}; it moved the weights by {last.summary['update_ratio']:.1g} of their norm."


def describe_chains(monitor: LearningCoefficientMonitor) -> str:
    """The learning coefficient, and what it is to be compared with, in words."""
    found = monitor.found
    assert found is not None
    error = "" if found.stderr is None else f" ± {found.stderr:.1g}"
    verdict = "" if found.is_valid else f" Not to be believed: {found.reason}."
    return (
        f"  Learning coefficient of {found.num_samples} digits: {found.value:.3g}{error} (localization 100).{verdict}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Train a healthy network and one that is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--l2", type=float, default=0.03, help="times the middle layer's squared weights, in the loss")
    parser.add_argument("--logs", default="runs", help="where TensorBoard's files go")
    options = parser.parse_args(arguments)

    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # the digits are in memory
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's, of its own
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its notes on hardware
    train("healthy", 0.0, options.epochs, options.logs)
    train("over-regularized", options.l2, options.epochs, options.logs)

    print(f"\nLook at both:  make tensorboard   (or: tensorboard --logdir {options.logs}), open http://localhost:6006")
    print("CUSTOM SCALARS: the networks at a glance. IMAGES: all layers over time (`ww.maps`), the spectra of some")
    print(
        "(`ww.spectrum`), the spectrum of the loss's Hessian (`curvature`). TEXT: the same in words. TIME SERIES: each"
    )
    print(
        "number, of the network under `ww`, `curvature`, `gradients` and `slt`, of each layer under `ww.alpha` and the like."
    )


if __name__ == "__main__":
    main()
