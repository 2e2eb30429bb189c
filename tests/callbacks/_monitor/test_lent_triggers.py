"""Triggers named in ``stop_on=`` that no monitor raises: which monitor gets them, and that it gives them back."""

from __future__ import annotations

import pytest
from helpers.fits import fit
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_ww.callbacks import CurvatureMonitor, SpectralEarlyStopping, WeightSpectrumMonitor


def test_a_trigger_that_is_not_raised_by_default_is_found_by_its_name() -> None:
    weights, curvature = WeightSpectrumMonitor(on_error="raise"), CurvatureMonitor(num_steps=2, on_error="raise")
    before = weights.triggers, curvature.triggers
    seen = []

    class Look(SpectralEarlyStopping):
        def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            super().setup(trainer, pl_module, stage)
            seen.append(([t.name for t in weights.triggers], [t.name for t in curvature.triggers]))

    fit(weights, curvature, Look(["plateau", "sharpness", "instability"]), max_epochs=1)
    usual = [trigger.name for trigger in before[0]]
    assert seen == [([*usual, "plateau", "instability"], ["sharpness"])]
    assert (weights.triggers, curvature.triggers) == before


def test_a_monitor_has_its_own_triggers_back_after_an_error() -> None:
    class Fail(Callback):
        def on_train_batch_start(self, *_: object) -> None:
            raise ZeroDivisionError

    monitor = WeightSpectrumMonitor()
    before = monitor.triggers
    with pytest.raises(ZeroDivisionError):
        fit(monitor, SpectralEarlyStopping("plateau"), Fail(), max_epochs=1)
    assert monitor.triggers == before


def test_a_name_that_no_monitor_can_measure_for_is_an_error_with_that_name() -> None:
    said = (
        r"SpectralEarlyStopping\(stop_on=\['sharpness'\]\)`: no monitor of this Trainer can raise it. "
        "`WeightSpectrumMonitor` measures layers, .*needs 'optimizer_sharpness'"
    )
    with pytest.raises(ValueError, match=said):
        fit(WeightSpectrumMonitor(), SpectralEarlyStopping("sharpness"))


def test_a_default_trigger_that_was_left_out_is_not_added() -> None:
    with pytest.raises(ValueError, match=r"stop_on=\['rank_collapse'\]\)`: no monitor of this Trainer raises it"):
        fit(WeightSpectrumMonitor(shuffle="off"), SpectralEarlyStopping("rank_collapse"))
