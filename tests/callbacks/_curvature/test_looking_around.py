"""A landscape that fails is one warning, and the run goes on."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.fits import fit

from lightning_ww.callbacks import CurvatureMonitor
from lightning_ww.callbacks._curvature.reading import CurvatureReader


@pytest.mark.parametrize("when", ["end", 1])
def test_an_error_in_it_is_one_warning(when: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(CurvatureReader, "look_around", fail)
    ours = CurvatureMonitor(1, num_steps=3, landscape=when)
    with pytest.warns(UserWarning, match="look along the curvature.*no memory"):
        trainer = fit(ours, max_epochs=2)
    assert trainer.current_epoch == 2
    assert len(ours.history) == 3
