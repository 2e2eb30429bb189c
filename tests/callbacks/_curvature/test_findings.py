"""The numbers of a reading are those of its spectrum."""

from __future__ import annotations

import pytest
import torch

from lightning_ww.callbacks._curvature.findings import SUMMARIES, CurvatureFindings, Reading
from lightning_ww.curvature import EdgeOfStability, spectral_density

VALUES = torch.cat([torch.linspace(0.1, 1.0, 30), torch.tensor([10.0, 20.0, 30.0])]).double()


def findings(num_training_samples: int | None, edge: EdgeOfStability | None) -> CurvatureFindings:
    density = spectral_density(torch.diag(VALUES), num_steps=33)
    return CurvatureFindings(Reading(density, edge, 16, 2, "by hand", num_training_samples))


def test_each_number_is_the_diagonal_matrixs() -> None:
    found = findings(1000, EdgeOfStability(1.5, 20.0, None)).summary
    assert found["sharpness"] == pytest.approx(30.0)
    assert found["lambda_min"] == pytest.approx(0.1, rel=1e-6)
    assert found["trace"] == pytest.approx(float(VALUES.sum()))
    assert (found["lr_sharpness"], found["stability_edge"]) == (1.5, 20.0)
    assert (found["num_samples"], found["batch_size"]) == (16.0, 8.0)
    assert found["llc_quadratic"] == pytest.approx(found["effective_dimension"] / 2)
    assert "optimizer_sharpness" not in found  # it has no value
    assert set(found) <= set(SUMMARIES)


def test_what_is_unknown_has_no_number() -> None:
    found = findings(None, None).summary
    assert {"effective_dimension", "llc_quadratic", "lr_sharpness", "stability_edge"}.isdisjoint(found)


def test_the_largest_eigenvalues_are_numbered_from_the_top() -> None:
    tops = findings(None, None).top_eigenvalues
    assert [tops[f"top_eigenvalues/{k}"] for k in (1, 2, 3)] == pytest.approx([30.0, 20.0, 10.0])
