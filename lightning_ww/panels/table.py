"""A report as a table in Markdown, for TensorBoard's text dashboard and for terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_ww.report import KEY_METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning_ww.diagnosis import Diagnosis
    from lightning_ww.report import WeightReport


def report_table(report: WeightReport, diagnosis: Diagnosis | None = None) -> str:
    """The layers, one a row, with their flags; below, what was skipped and why."""
    rows = []
    for layer in report.layers:
        flags = [flag.trigger for flag in diagnosis.flags if flag.layer == layer.name] if diagnosis else []
        numbers = [number(layer.metric(metric)) for metric in KEY_METRICS]
        shape = f"{layer.N} × {layer.M}" + (f" × {layer.slices}" if layer.slices > 1 else "")
        rows.append([f"`{layer.name}`", shape, *numbers, ", ".join(flags) or "–"])
    text = markdown(["layer", "shape", *KEY_METRICS, "flags"], rows)
    if report.skipped:
        skipped = [[f"`{skip.name}`", skip.reason, skip.sentence] for skip in report.skipped]
        text += "\n\nNot analysed:\n\n" + markdown(["layer", "reason", "why"], skipped)
    return text


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under headings; a bar in a cell is escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    return "–" if value is None else f"{value:.3g}"
