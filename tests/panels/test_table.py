"""The table that people read in TensorBoard."""

from __future__ import annotations

from test_report import layer

from lightning_ww import SkippedLayer, WeightReport
from lightning_ww.diagnosis import diagnose
from lightning_ww.panels.table import report_table


def test_table_names_layers_numbers_flags_and_what_was_skipped() -> None:
    report = WeightReport(
        (layer("encoder.0", alpha=2.3456, rank_deficit=0.95), layer("a|b", slices=9)),
        (SkippedLayer("norm", "one_axis", "a weight with 1 axis is not a matrix"),),
        0.0,
    )
    lines = report_table(report, diagnose(report)).splitlines()
    assert lines[0].startswith("| layer | shape | alpha | rand_distance | sv_min |")
    assert lines[2].startswith("| `encoder.0` | 40 × 30 | 2.35 | – |")
    assert lines[2].endswith("| rank_collapse | – |")
    assert lines[3].startswith("| `a\\|b` | 40 × 30 × 9 | – |")
    assert lines[-1] == "| `norm` | one_axis | a weight with 1 axis is not a matrix |"
    assert "flags" in lines[0]
    assert report_table(WeightReport((), (), 0.0)).count("\n") == 1
