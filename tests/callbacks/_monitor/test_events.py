"""Which flag rose and fell when, in words."""

from __future__ import annotations

from pathlib import Path

from helpers.drawn import Deep, fit
from helpers.networks import data, quiet_trainer
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ww import Diagnosis, Flag
from lightning_ww.callbacks import WeightSpectrumMonitor
from lightning_ww.callbacks._monitor.events import Events


def test_the_report_tells_when_flags_rose_and_fell_and_goes_on_after_a_resume(tmp_path: Path) -> None:
    first = WeightSpectrumMonitor()
    trainer = fit(first, logger=TensorBoardLogger(str(tmp_path), version="a"), epochs=4)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second = WeightSpectrumMonitor()
    logger = TensorBoardLogger(str(tmp_path), version="b")
    trainer = quiet_trainer(callbacks=[second], logger=logger, max_epochs=6)
    trainer.fit(Deep(), data(), data(shuffle=False), ckpt_path=str(tmp_path / "last.ckpt"))
    events = EventAccumulator(logger.log_dir).Reload()
    text = events.Tensors("ww/report/text_summary")[-1].tensor_proto.string_val[0].decode()
    rose = text.index("After 18 steps (epoch 2): `rank_collapse` at layer `middle.0`")
    assert text.index("`rank_collapse` at layer `middle.0` is over.") < rose


JUDGED = ("rank_collapse", "sharpness")


def test_a_flag_of_a_layer_that_cannot_be_measured_any_more_is_not_over() -> None:
    events = Events()
    events.note("Now", Diagnosis(), {"rank_collapse": ["gone", "a"], "sharpness": [""]}, ["a"], JUDGED)
    assert events.lines == [
        "Now: `rank_collapse` at layer `gone` cannot be measured any more.",
        "Now: `rank_collapse` at layer `a` is over.",
        "Now: `sharpness` is over.",
    ]
    for _ in range(60):
        events.note("Later", Diagnosis(), {"rank_collapse": ["gone", "gone too"]}, ["a"], JUDGED)
    assert len(events.lines) == 100
    assert events.lines[0] == "There were earlier ones, which are not kept."
    assert all(line.startswith("Later") for line in events.lines[1:])


def test_a_flag_of_a_trigger_that_is_not_judged_any_more_is_not_over() -> None:
    events = Events()
    events.note("Now", Diagnosis(), {"rank_collapse": ["a"]}, ["a"], ["nonfinite"])
    assert events.lines == ["Now: `rank_collapse` at layer `a` is not judged any more."]


def test_flags_that_are_new_are_returned() -> None:
    flags = tuple(Flag("t", layer, "…") for layer in "ab")
    risen = Events().note("Now", Diagnosis(flags), {"t": ["a"]}, ["a", "b"], ["t"])
    assert [flag.layer for flag in risen] == ["b"]
