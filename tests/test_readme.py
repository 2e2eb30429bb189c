"""The README's code runs as it stands, and its trigger is logged, counted and able to stop."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.networks import Classifier, data, quiet_trainer
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the blocks leave behind, run one after the other."""
    x, y = torch.randn(16, 24), torch.arange(16)
    short = f"Trainer(max_epochs=1, default_root_dir={str(tmp_path_factory.mktemp('logs'))!r}, accelerator='cpu',"
    found: dict[str, Any] = {"model": Classifier(), "loader": data(), "loss": functional.cross_entropy, "x": x, "y": y}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's, of loaders and loggers
        for block in BLOCKS:
            exec(block.replace("Trainer(", short, 1), found)
    return found


def test_every_block_runs(namespace: dict[str, Any]) -> None:
    assert namespace["trainer"].global_step == 6
    assert namespace["spectral_density"](namespace["H"], num_steps=30).sharpness > 0


def test_the_trigger_is_about_fifteen_lines() -> None:
    block = next(block for block in BLOCKS if "class AlphaFell" in block)
    trigger = block[block.index("@dataclass") : block.index("\n\nWeightSpectrumMonitor")]
    assert len([line for line in trigger.splitlines() if line.strip()]) <= 15


class Heavy(Callback):
    """Gives a layer a heavy tail."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        left, values, right = torch.linalg.svd(torch.randn(32, 24), full_matrices=False)
        values = torch.logspace(2, -2, len(values))
        with torch.no_grad():
            pl_module.hidden.weight.copy_(left @ torch.diag(values) @ right)  # type: ignore[union-attr,operator]


def test_its_trigger_is_logged_counted_and_able_to_stop(namespace: dict[str, Any], tmp_path: Path) -> None:
    trigger, monitor_of, stopping_of = (
        namespace[name] for name in ("AlphaFell", "WeightSpectrumMonitor", "SpectralEarlyStopping")
    )
    monitor = monitor_of(triggers=[trigger(ratio=0.9)])
    stopping = stopping_of(stop_on=["alpha_fell"], patience=2, min_epochs=0)
    logger = TensorBoardLogger(str(tmp_path), name="", version="")
    trainer = quiet_trainer(callbacks=[Heavy(), monitor, stopping], logger=logger, max_epochs=9)
    with pytest.warns(UserWarning, match="`alpha_fell` at layer `hidden`: alpha"):
        trainer.fit(Classifier(lr=0.0), data(), data(16, shuffle=False))
    assert trainer.current_epoch == 2
    assert "`alpha_fell` fired at 2 measurements in a row" in stopping.stopping_reason_message
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("flags/alpha_fell")] == [0.0, 1.0, 1.0]
    assert [event.value for event in events.Scalars("flags.alpha_fell/hidden")] == [0.0, 1.0, 1.0]
    assert [event.value for event in events.Scalars("ww/num_flagged")] == [0.0, 1.0, 1.0]
