"""The table that people read in TensorBoard."""

from __future__ import annotations

import torch
from helpers.reports import layer
from torch import nn

from lightning_ww import SkippedLayer, WeightReport, analyze
from lightning_ww.triggers.diagnosis import diagnose
from lightning_ww.weights.plots.table import report_table, suggestion


def test_table_names_layers_numbers_flags_and_what_was_skipped() -> None:
    report = WeightReport(
        (layer("encoder.0", alpha=2.3456, rank_deficit=0.95), layer("a|b", slices=9)),
        (SkippedLayer("norm", "one_axis", "a weight with 1 axis is not a matrix"),),
        0.0,
    )
    lines = report_table(report, diagnose(report).by_trigger).splitlines()
    assert lines[0].startswith("| layer | shape | alpha | alpha_hill | rand_distance | sv_min |")
    assert lines[2].startswith("| `encoder.0` | 40 × 30 | 2.35 | – | – |")
    assert "| `encoder.0` | rank_collapse | – |" in lines
    assert lines[3].startswith("| `a\\|b` | 40 × 30 × 9 | – |")
    assert lines[-1] == "| `norm` | one_axis | a weight with 1 axis is not a matrix |"
    assert report_table(WeightReport((), (), 0.0)).count("\n") == 1


def test_suggestions_follow_the_numbers() -> None:
    noise = layer("noise", rand_distance=0.02, rand_distance_floor=0.015, alpha=3.0, alpha_stderr=0.1, num_tail=30)
    assert suggestion(noise) == ""  # trained layers can look like noise, and noise can have a tail
    far = {"rand_distance": 0.3, "rand_distance_floor": 0.015, "num_tail": 30}
    for alpha, stderr, expected in (
        (1.5, 0.1, "very heavy tail (alpha below 2)"),
        (3.0, 0.1, "tail as in trained layers"),
        (9.0, 0.5, "weak tail (alpha above 6)"),
        (6.5, 0.5, ""),  # too close to say
    ):
        assert suggestion(layer("x", alpha=alpha, alpha_stderr=stderr, **far)) == expected
    assert suggestion(layer("x", alpha=3.0, alpha_stderr=0.1, **far | {"num_tail": 10})) == ""
    assert suggestion(layer("x", rank_loss=3)).startswith("3 of 30 directions lost")
    still = layer("x", distance_from_init_relative=1e-4)
    assert suggestion(still) == "has hardly moved from its initial weight"
    assert suggestion(still, at_start=True) == ""
    assert suggestion(layer("x", stable_rank=1.9)) == "one direction holds more than half of the weight"
    assert suggestion(layer("x", stable_rank=2.1)) == ""
    assert suggestion(layer("x", reasons={"alpha": "spectrum too narrow"})) == "no alpha: spectrum too narrow"


def test_of_a_tail_nothing_is_said_where_noise_was_not_ruled_out() -> None:
    torch.manual_seed(0)
    for shuffle in ("off", "exact"):  # without shuffles; with them, but without their own distance
        report = analyze(nn.Sequential(*(nn.Linear(64, 64) for _ in range(6))), shuffle=shuffle)
        assert not any("tail" in suggestion(one) for one in report.layers)


def test_events_stand_below_the_latest_first() -> None:
    text = report_table(WeightReport((layer("a"),), (), 0.0), None, ["Step 1: first", "Step 2: second"])
    assert text.index("Step 2: second") < text.index("Step 1: first")
