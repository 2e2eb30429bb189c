"""When each trigger fires in runs of known health, and what stopping there would have cost.

Digits, a perceptron 64 – 256 – 256 – 10, 40 epochs, two seeds. "Cost" is the best validation accuracy of the run
minus the one where training would have stopped (patience 3, from epoch 5 on). Prints a table, and writes it to
`docs/false_alarms.md`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ww.callbacks import SpectralEarlyStopping, WeightSpectrumMonitor

EPOCHS, SEEDS = 40, (0, 1)
TRIGGERS = ("rank_collapse", "correlation_trap")
Optimizer = Callable[[Any], torch.optim.Optimizer]

RUNS: dict[str, tuple[Optimizer, int, float, float]] = {
    # optimizer, batch size, share of random labels, L2 on the second layer
    "healthy: Adam 1e-3": (lambda p: torch.optim.Adam(p, lr=1e-3), 32, 0.0, 0.0),
    "healthy: AdamW 1e-3, decay 3e-2": (lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=3e-2), 32, 0.0, 0.0),
    "healthy: SGD 0.05, momentum 0.9": (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), 32, 0.0, 0.0),
    "large steps: SGD 0.5, batch 8": (lambda p: torch.optim.SGD(p, lr=0.5), 8, 0.0, 0.0),
    "large steps: Adam 1e-2, batch 16": (lambda p: torch.optim.Adam(p, lr=1e-2), 16, 0.0, 0.0),
    "40 % random labels: Adam 1e-3": (lambda p: torch.optim.Adam(p, lr=1e-3), 32, 0.4, 0.0),
    "80 % random labels: Adam 1e-3": (lambda p: torch.optim.Adam(p, lr=1e-3), 32, 0.8, 0.0),
    "L2 3e-3 on one layer: SGD 0.05": (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), 32, 0.0, 3e-3),
    "L2 3e-2 on one layer: SGD 0.05": (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), 32, 0.0, 3e-2),
}


class Digits(LightningModule):
    """A perceptron of three layers."""

    def __init__(self, optimizer: Optimizer, l2: float) -> None:
        super().__init__()
        self.optimizer, self.l2 = optimizer, l2
        self.first, self.second, self.head = nn.Linear(64, 256), nn.Linear(256, 256), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return torch.as_tensor(self.head(torch.relu(self.second(torch.relu(self.first(x))))))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: D102
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        return loss + self.l2 * self.second.weight.square().sum()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:  # noqa: D102
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:  # noqa: D102
        return self.optimizer(self.parameters())


class Accuracies(Callback):
    """Validation accuracy, epoch by epoch."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        if not trainer.sanity_checking:
            self.seen.append(float(trainer.callback_metrics["accuracy"]))


def run(name: str, seed: int) -> dict[str, str]:
    """One training; per trigger, where it would have stopped and at what cost."""
    optimizer, batch_size, random_labels, l2 = RUNS[name]
    seed_everything(seed, verbose=False)
    x, y = load_digits(return_X_y=True)
    points, labels = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    order = torch.randperm(len(y))
    training, held_out = order[:1400], order[1400:]
    noisy = training[torch.rand(1400) < random_labels]
    given = labels.clone()
    given[noisy] = torch.randint(10, (len(noisy),))
    accuracies, monitor = Accuracies(), WeightSpectrumMonitor(on_error="raise")
    trainer = Trainer(
        max_epochs=EPOCHS,
        callbacks=[monitor, accuracies],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(
        Digits(optimizer, l2),
        DataLoader(TensorDataset(points[training], given[training]), batch_size=batch_size, shuffle=True),
        DataLoader(TensorDataset(points[held_out], labels[held_out]), batch_size=397),
    )
    defaults = SpectralEarlyStopping()
    outcome = {"best": f"{100 * max(accuracies.seen):.1f} %"}
    for trigger in TRIGGERS:
        fired = [trigger in past.fired for past in monitor.history][1:]
        streaks = [all(fired[max(0, i + 1 - defaults.patience) : i + 1]) for i in range(len(fired))]
        stops = [i for i, s in enumerate(streaks) if s and i + 1 >= max(defaults.patience, defaults.min_epochs)]
        if stops:
            cost = 100 * (max(accuracies.seen) - accuracies.seen[stops[0]])
            outcome[trigger] = f"epoch {stops[0] + 1}, costs {cost:.1f} points"
        else:
            outcome[trigger] = "never" if not any(fired) else f"fires {sum(fired)}×, never stops"
    return outcome


def main() -> None:
    """Run everything; about three minutes."""
    warnings.filterwarnings("ignore")  # the flags, which are wanted here
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    rows = []
    for name in RUNS:
        both = [run(name, seed) for seed in SEEDS]
        rows.append([name, *(" / ".join(outcome[key] for outcome in both) for key in ("best", *TRIGGERS))])
    table = tabulate(
        rows, headers=("run", "best accuracy", *(f"`{trigger}`" for trigger in TRIGGERS)), tablefmt="github"
    )
    print(table)
    heading = (
        "# When the triggers fire\n\nWritten by `make false-alarms`: digits, a perceptron 64 – 256 – 256 – 10, "
        "40 epochs, two seeds.\nWhere `SpectralEarlyStopping` with its defaults would have stopped, and how many\n"
        "points of validation accuracy that costs against the best epoch of the whole run.\n\n"
    )
    (Path(__file__).parents[1] / "docs" / "false_alarms.md").write_text(heading + table + "\n")


if __name__ == "__main__":
    main()
