"""A stop's reason is a text in TensorBoard, an event, and part of the checkpoints that are saved after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.collapsing import Collapse, Still
from helpers.fits import fit
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ww.callbacks import SpectralEarlyStopping, WeightSpectrumMonitor

pytestmark = pytest.mark.filterwarnings("ignore:.*`rank_collapse` at layer")


def stopped(tmp_path: Path, **arguments: Any) -> tuple[SpectralEarlyStopping, Any]:
    stopping = SpectralEarlyStopping("rank_collapse", patience=2, min_epochs=0)
    trainer = fit(
        WeightSpectrumMonitor(on_error="raise"),
        stopping,
        Collapse(1, 2, 3),
        ModelCheckpoint(tmp_path / "saved", save_last=True),
        model=Still(),
        max_epochs=9,
        limit_val_batches=0,
        logger=TensorBoardLogger(str(tmp_path), "", ""),
        enable_checkpointing=True,
        **arguments,
    )
    return stopping, trainer


def test_tensorboard_and_the_checkpoint_have_the_reason(tmp_path: Path) -> None:
    stopping, _ = stopped(tmp_path)
    message = stopping.stopping_reason_message
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    [text] = events.Tensors("flags/stop_reason/text_summary")
    assert text.tensor_proto.string_val[0].decode() == message
    [measured] = [one.step for one in events.Scalars("ww/alpha")][-1:]
    assert text.step == measured
    saved = torch.load(tmp_path / "saved" / "last.ckpt", weights_only=True)["callbacks"][stopping.state_key]
    assert saved["stopped"] == {"epoch": 2, "reason": "trigger", "message": message}


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_fit_that_is_resumed_from_there_has_not_stopped_yet(tmp_path: Path) -> None:
    stopped(tmp_path)
    again = SpectralEarlyStopping("rank_collapse", patience=2, min_epochs=0)
    fit(  # a warning would be an error
        WeightSpectrumMonitor(on_error="raise"),
        again,
        Collapse(1, 2, 3),
        model=Still(),
        max_epochs=3,
        ckpt_path=tmp_path / "saved" / "last.ckpt",
    )
    assert (again.stopped_epoch, again.stopping_reason_message) == (-1, None)
