"""`Nonfinite` flags weights that are lost."""

from __future__ import annotations

from helpers.reports import layer, report

from lightning_ww import Nonfinite, SkippedLayer, diagnose


def test_it_comes_from_the_skipped_layers_and_fires_with_one() -> None:
    lost = SkippedLayer("a", "nonfinite", "2 of 320 elements are NaN or infinite")
    other = SkippedLayer("b", "one_axis", "…")
    found = diagnose(report(layer("c"), skipped=(lost, other)))
    assert found.by_trigger == {"nonfinite": ("a",)}
    assert found.fired == ("nonfinite",)
    assert str(found.flags[0]) == (
        "`nonfinite` at layer `a`: 2 of 320 elements are NaN or infinite. "
        "Training has diverged. Lower the learning rate, or clip gradients."
    )


def test_it_needs_no_patience() -> None:
    assert Nonfinite().acts_at_once
