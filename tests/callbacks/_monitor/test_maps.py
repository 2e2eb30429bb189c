"""Maps of all layers over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.drawn import fit
from helpers.networks import Classifier
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_ww import Measurement, Moment
from lightning_ww.callbacks import WeightSpectrumMonitor
from lightning_ww.callbacks._monitor.maps import Maps, shown_rows
from lightning_ww.callbacks._weights.pictures import SCALES
from lightning_ww.drawing.heat_map import FRAME

pytestmark = pytest.mark.usefixtures("no_bound_on_pictures")


def test_maps_hold_the_history_by_layer_and_frame_what_was_flagged() -> None:
    monitor = WeightSpectrumMonitor(metrics=["alpha", "stable_rank"])
    fit(monitor, logger=False)
    maps = Maps(tuple(monitor.history), SCALES)
    rows, framed, note = maps.rows
    assert rows == ["hidden", "head", *(f"middle.{i}" for i in range(6))]
    assert maps.columns == list(monitor.history)
    values = maps.values("stable_rank")
    for i, name in enumerate(rows):
        for j, past in enumerate(monitor.history):
            assert values[i, j] == past.value(name, "stable_rank")
            assert framed[i, j] == any(name in layers for layers in past.flags.values())
    assert framed.any()
    assert note == "Framed: flagged."


def test_a_short_flag_is_framed_in_a_long_history_too() -> None:
    def past(number: int) -> Measurement:
        flags: Any = {"rank_collapse": ("b",)} if number == 505 else {}
        values = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
        moment = Moment(number, number, number, number, False)
        return Measurement(moment, {}, ("a", "b"), ("alpha",), values, flags)

    picture = Maps([past(number) for number in range(1000)], SCALES)("alpha")
    assert picture is not None
    ys, _ = np.nonzero((picture == FRAME).all(axis=2))
    assert ys.min() >= 84 + 30  # in the second row


def test_a_layer_that_was_never_finite_has_a_framed_row_and_the_run_goes_on(tmp_path: Path) -> None:
    model = Classifier(lr=0.0)
    torch.nn.init.constant_(model.hidden.weight, float("nan"))
    monitor = WeightSpectrumMonitor(metrics=["alpha"], on_error="raise")
    fit(monitor, logger=TensorBoardLogger(str(tmp_path)), epochs=1, model=model)
    maps = Maps(tuple(monitor.history), SCALES)
    rows, framed, _ = maps.rows
    assert rows == ["head", "hidden"]
    assert np.isnan(maps.values("alpha")[1]).all()
    assert framed[1].all()
    assert not framed[0, 0]
    torch.nn.init.constant_(model.head.weight, float("nan"))
    with pytest.warns(UserWarning, match="nonfinite"):
        fit(WeightSpectrumMonitor(on_error="raise"), logger=TensorBoardLogger(str(tmp_path)), epochs=1, model=model)


def test_of_many_layers_the_flagged_ones_are_rows_first_and_there_are_not_too_many() -> None:
    names = [str(i) for i in range(1000)]
    rows, note = shown_rows(names, {"3", "500"})
    assert len(rows) == 150
    assert {"0", "3", "500", "999"} <= set(rows)
    assert rows == sorted(rows, key=int)
    assert note == "150 of 1000 layers: flagged ones, the others evenly by depth."
    rows, note = shown_rows(names, set(names[:400]))
    assert len(rows) == 150
    assert set(rows) <= set(names[:400])
    assert shown_rows(names[:150], {"3"}) == (names[:150], "")
