"""A report as a table in Markdown, for TensorBoard's text dashboard and for terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_ww.drawing.markdown import events_and_skips, markdown, number
from lightning_ww.weights.metrics import KEY_METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning_ww.weights.report import LayerReport, WeightReport


HEAVY_TAIL, WEAK_TAIL = 2.0, 6.0
"""The range of alpha in trained layers of large networks (Martin, Mahoney 2021)."""

CLEAR_TAIL = 20
"""The fewest eigenvalues in a tail for which alpha is informative."""

ONE_DOMINATES = 2.0
"""The stable rank, ‖W‖²_F/‖W‖², below which the largest singular value makes up more than half of ‖W‖²_F."""

LIKE_CHANCE = 2.0
"""The multiple of the noise's own rand_distance below which the tail of a layer is not informative."""

HARDLY_MOVED = 1e-3
"""The distance from the initial weight, relative to its norm, below which a layer has hardly moved."""


def report_table(
    report: WeightReport,
    flags: Mapping[str, Sequence[str]] | None = None,
    events: Sequence[str] = (),
    *,
    from_start: Mapping[str, Sequence[str]] | None = None,
    at_start: bool = False,
) -> str:
    """Write the layers, their flags, and what their numbers suggest as tables; then the events and the skipped layers.

    Args:
        report: The measurement.
        flags: The flagged layers, by trigger. Default: none.
        events: Sentences on flags that rose and fell, oldest first. Default: none.
        from_start: The layers for which a trigger's condition has held from the start, by trigger. Default: none.
        at_start: Whether no step has been made, so that no weight can have moved. Default: ``False``.
    """
    rows, hints = [], []
    for layer in report.layers:
        numbers = [number(layer.metric(metric)) for metric in KEY_METRICS]
        rows.append([f"`{layer.name}`", layer.shape, *numbers])
        raised = [trigger for trigger, flagged in (flags or {}).items() if layer.name in flagged]
        raised += [f"{trigger} (from the start)" for trigger, some in (from_start or {}).items() if layer.name in some]
        suggests = suggestion(layer, at_start=at_start)
        if raised or suggests:
            hints.append([f"`{layer.name}`", ", ".join(raised) or "–", suggests or "–"])
    text = markdown(["layer", "shape", *KEY_METRICS], rows)
    if hints:  # a second table: if the first is too wide, TensorBoard breaks names and numbers
        text += "\n\n" + markdown(["layer", "flags", "suggests"], hints)
    return text + events_and_skips(events, report.skipped, "Not analyzed")


def suggestion(layer: LayerReport, *, at_start: bool = False) -> str:
    """A few words on what a layer's numbers suggest, or none; they are hints only."""
    hints = []
    if layer.zero_share == 1:
        return "all elements are zero" if at_start else "all elements are zero: it has not moved, or has died"
    if layer.rank_loss:
        hints.append(f"{layer.rank_loss} of {layer.num_eigenvalues} directions lost")
    if layer.stable_rank is not None and layer.stable_rank < ONE_DOMINATES:
        hints.append("one direction holds more than half of the weight")
    if "alpha" in layer.reasons:
        hints.append(f"no alpha: {layer.reasons['alpha']}")
    if layer.rand_distance is not None and layer.rand_distance_floor is not None:
        # a tail can be fitted to noise, too; that a trained layer looks like noise is no sign that it has learned nothing
        hints += _tail(layer) if layer.rand_distance >= LIKE_CHANCE * layer.rand_distance_floor else []
    moved = layer.distance_from_init_relative
    if moved is not None and moved < HARDLY_MOVED and not layer.is_frozen and not at_start:
        hints.append("has hardly moved from its initial weight")
    return "; ".join(hints)


def _tail(layer: LayerReport) -> list[str]:
    if layer.alpha is None or layer.alpha_stderr is None or (layer.num_tail or 0) < CLEAR_TAIL:
        return []
    if layer.alpha + 2 * layer.alpha_stderr < HEAVY_TAIL:
        return ["very heavy tail (alpha below 2)"]
    if layer.alpha - 2 * layer.alpha_stderr > WEAK_TAIL:
        return ["weak tail (alpha above 6)"]
    return ["tail as in trained layers"] if HEAVY_TAIL <= layer.alpha <= WEAK_TAIL else []
