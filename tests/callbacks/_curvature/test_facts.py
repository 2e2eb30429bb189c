"""The facts of a measurement in its table."""

from __future__ import annotations

from helpers.fits import curvature_monitor, fit

from lightning_ww.callbacks._curvature.facts import facts_of
from lightning_ww.callbacks._curvature.findings import CurvatureFindings


def test_settings_and_numbers_are_in_words() -> None:
    ours = curvature_monitor(num_steps=4)
    fit(ours, max_epochs=1)
    findings = ours._run.findings
    assert isinstance(findings, CurvatureFindings)
    facts = facts_of(findings, {"num_steps": 4})
    assert facts["num_steps"] == "4"
    assert facts["parameters"] == f"{findings.density.dim:,}"
    assert facts["trace"].startswith(f"{findings.density.trace:.4g} ± ")
    assert "condition" in facts
    assert "left out" not in facts
