"""A report as a table in Markdown, for TensorBoard's text dashboard and for terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_ww.report import KEY_METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning_ww.diagnosis import Diagnosis
    from lightning_ww.report import LayerReport, WeightReport


HEAVY_TAIL, WEAK_TAIL = 2.0, 6.0
"""Trained layers of large networks have an alpha in between (Martin, Mahoney 2021)."""

CLEAR_TAIL = 20
"""Of fewer eigenvalues in the tail, alpha says little."""

LIKE_CHANCE = 2.0
"""So many times the distance between two shuffles, or less, and a layer's own distance says nothing."""

HARDLY_MOVED = 1e-3
"""Of the initial weight's norm."""


def report_table(report: WeightReport, diagnosis: Diagnosis | None = None, events: Sequence[str] = ()) -> str:
    """The layers, one a row, with their flags and what their numbers suggest; below, events, and what was skipped."""
    rows, hints = [], []
    for layer in report.layers:
        numbers = [number(layer.metric(metric)) for metric in KEY_METRICS]
        shape = f"{layer.N} × {layer.M}" + (f" × {layer.slices}" if layer.slices > 1 else "")
        rows.append([f"`{layer.name}`", shape, *numbers])
        flags = [flag.trigger for flag in diagnosis.flags if flag.layer == layer.name] if diagnosis else []
        if flags or suggestion(layer):
            hints.append([f"`{layer.name}`", ", ".join(flags) or "–", suggestion(layer) or "–"])
    text = markdown(["layer", "shape", *KEY_METRICS], rows)
    if hints:  # a table of its own: in one that is too wide, TensorBoard breaks names and numbers
        text += "\n\n" + markdown(["layer", "flags", "suggests"], hints)
    if events:
        text += "\n\nEvents, the latest first:\n\n" + "\n".join(f"- {event}" for event in reversed(events))
    if report.skipped:
        skipped = [[f"`{skip.name}`", skip.reason, skip.sentence] for skip in report.skipped]
        text += "\n\nNot analysed:\n\n" + markdown(["layer", "reason", "why"], skipped)
    return text


def suggestion(layer: LayerReport) -> str:
    """What a layer's numbers suggest, in a few words, if anything; hints, not findings."""
    said = []
    if layer.rank_loss:
        said.append(f"{layer.rank_loss} of {layer.num_eigenvalues} directions lost")
    if layer.rand_distance is not None and layer.rand_distance < LIKE_CHANCE * (layer.rand_distance_floor or 0):
        said.append("spectrum like that of noise: nothing learned that shows")
    elif layer.alpha is not None and layer.alpha_stderr is not None and (layer.num_tail or 0) >= CLEAR_TAIL:
        if layer.alpha + 2 * layer.alpha_stderr < HEAVY_TAIL:
            said.append("very heavy tail: a few directions dominate")
        elif layer.alpha - 2 * layer.alpha_stderr > WEAK_TAIL:
            said.append("weak tail: little is correlated yet")
        elif HEAVY_TAIL <= layer.alpha <= WEAK_TAIL:
            said.append("tail as in trained layers")
    moved = layer.distance_from_init_relative
    if moved is not None and moved < HARDLY_MOVED and not layer.is_frozen:
        said.append("has hardly moved from its initial weight")
    return "; ".join(said)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under headings; a bar in a cell is escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    return "–" if value is None else f"{value:.3g}"
