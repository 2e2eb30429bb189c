"""A measurement of the curvature keeps the raw nodes and weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_ww import CurvatureMeasurement, Moment
from lightning_ww.curvature import SpectralDensity, spectral_density


@dataclass
class Findings:
    density: SpectralDensity
    engine: str = "by hand"
    summary: Any = None
    layers: Any = ()
    skipped: Any = ()


def test_nodes_and_weights_go_through_a_checkpoint_to_the_bit(tmp_path: Path) -> None:
    density = spectral_density(torch.diag(torch.linspace(-1, 5, 9).double()), num_steps=5)
    kept = CurvatureMeasurement.of(
        Moment(0, 0, 0, 0, True), Findings(density, summary={"sharpness": density.sharpness})
    )
    assert kept.density is density
    assert kept.rows() == [{"step": 0, "epoch": 0, "engine": "by hand", "sharpness": density.sharpness}]
    torch.save(kept.state_dict(), tmp_path / "state.pt")
    again = CurvatureMeasurement.from_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(again.density.nodes, density.nodes)
    assert torch.equal(again.density.weights, density.weights)
    assert (again.moment, again.engine, again.summary) == (kept.moment, kept.engine, kept.summary)
