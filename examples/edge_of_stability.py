"""Full-batch training raises the curvature until the optimizer is at its edge of stability, and stays there.

Gradient descent settles where lr · λ_max = 2 (Cohen et al., 2021, arXiv:2103.00065), Adam where its preconditioned
sharpness is (2 + 2β₁)/(1 − β₁) over lr, 38/lr by default (Cohen et al., 2022, arXiv:2207.14484). `CurvatureMonitor`
logs both as `curvature/optimizer_sharpness`, in units of the edge: it should come to rest at 1.
"""

from __future__ import annotations

import argparse
import logging
import warnings

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ww.callbacks import CurvatureMonitor

Batch = tuple[Tensor, Tensor]

RUNS = {"sgd": (0.3, 0.4, 0.6), "adam": (3e-3, 1e-3, 5e-4)}
"""Learning rates that reach their edge within the steps below."""

STEPS = 4000


class Digits(LightningModule):
    """A tanh network that regresses on which digit it sees."""

    def __init__(self, optimizer: str, lr: float) -> None:
        super().__init__()
        self.optimizer, self.lr = optimizer, lr
        sizes = [nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)]
        self.net = nn.Sequential(*sizes)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: D102
        x, y = batch
        targets = nn.functional.one_hot(y, 10).float()
        return torch.as_tensor(0.5 * (self.net(x) - targets).square().sum(dim=1).mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:  # noqa: D102
        if self.optimizer == "sgd":
            return torch.optim.SGD(self.parameters(), lr=self.lr)
        return torch.optim.Adam(self.parameters(), lr=self.lr, eps=1e-7)


def approach(optimizer: str, lr: float, steps: int = STEPS) -> list[float]:
    """How far from its edge the optimizer is, every fiftieth of the way; 1 is the edge."""
    seed_everything(0, verbose=False)
    x, y = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(x[:500] / 16, dtype=torch.float32), torch.tensor(y[:500]))
    monitor = CurvatureMonitor(
        every_n_epochs=None, every_n_train_steps=max(1, steps // 50), num_steps=15, optimizer_sharpness=True
    )
    trainer = Trainer(
        max_epochs=steps,  # one step each: the batch is the data
        callbacks=[monitor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(Digits(optimizer, lr), DataLoader(data, batch_size=len(data)))
    seen = [past.summary.get("optimizer_sharpness") for past in monitor.history]
    return [ratio for ratio in seen if ratio is not None]  # Adam has none before its first step


def main(arguments: list[str] | None = None) -> None:
    """Train at three learning rates with each optimizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # the digits are in memory
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's, of its own
    warnings.filterwarnings("ignore", message=".*longer than the rest of its epoch.*")  # an epoch is one step here
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for optimizer, rates in RUNS.items():
        for lr in rates:
            seen = approach(optimizer, lr, options.steps)
            way = " → ".join(f"{seen[i * (len(seen) - 1) // 4]:.2f}" for i in range(5))
            last = seen[-len(seen) // 5 :]
            print(f"{optimizer:4} lr {lr:<6g} {way}   mean of the last fifth: {sum(last) / len(last):.2f} of its edge")


if __name__ == "__main__":
    main()
