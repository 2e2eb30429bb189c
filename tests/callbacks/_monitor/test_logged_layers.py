"""The layers that are logged one by one."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from helpers.fits import fit
from helpers.fits import weight_monitor as monitor
from helpers.networks import Classifier, Growing
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import nn


class Deep(Classifier):
    """Thirty layers."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nn.Linear(32, 32) for _ in range(28)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.blocks(torch.relu(self.hidden(x)))))


def test_of_many_layers_some_are_logged_evenly_by_depth_and_all_are_measured(tmp_path: Path) -> None:
    class Collapse(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            with torch.no_grad():
                pl_module.blocks[3].weight.zero_()  # type: ignore[index,union-attr]

    ours = monitor(max_logged_layers=4)
    with pytest.warns(UserWarning, match="`rank_collapse` at layer `blocks.3`"):
        fit(ours, Collapse(), model=Deep(), logger=CSVLogger(str(tmp_path), name="", version=""), max_epochs=1)
    assert ours.report is not None
    assert len(ours.report.layers) == 30
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = {key.removeprefix("ww.sv_min/") for key in rows[0] if key.startswith("ww.sv_min/")}
    assert logged == {"hidden", "blocks.8", "blocks.17", "blocks.27", "blocks.3"}  # four, and the flagged one


def test_layers_that_come_and_go_are_followed(tmp_path: Path) -> None:
    ours = monitor()
    fit(ours, model=Growing(), max_epochs=3, logger=CSVLogger(str(tmp_path), name="", version=""))
    assert [past.layers for past in ours.history] == [
        ("hidden", "head"),
        ("hidden", "head"),
        ("hidden", "head", "late"),
        ("hidden", "head"),
    ]
    assert ours.history[2].value("late", "distance_from_init") == 0  # from when it was first seen
    assert "ww.alpha/late" in (tmp_path / "metrics.csv").read_text()
