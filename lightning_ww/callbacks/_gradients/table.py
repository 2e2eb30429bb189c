"""The gradients of all layers as a table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_ww.drawing.markdown import events_and_skips, markdown, number
from lightning_ww.gradients.metrics import GRADIENT_METRICS

if TYPE_CHECKING:
    from lightning_ww.gradients.report import GradientReport


def gradient_table(
    report: GradientReport, flags: Mapping[str, Sequence[str]] | None = None, events: Sequence[str] = ()
) -> str:
    """Write the layers with their numbers and flags, then why numbers are missing, the events, and the layers left out.

    Args:
        report: The measurement.
        flags: The flagged layers, by trigger. Default: none.
        events: Sentences on flags that rose and fell, oldest first. Default: none.
    """
    rows, whys = [], []
    for layer in report.layers:
        raised = [trigger for trigger, flagged in (flags or {}).items() if layer.name in flagged]
        numbers = [number(layer.metric(metric)) for metric in GRADIENT_METRICS]
        rows.append([f"`{layer.name}`", *numbers, ", ".join(raised) or "–"])
        if layer.reasons:
            whys.append([f"`{layer.name}`", "; ".join(dict.fromkeys(layer.reasons.values()))])
    text = markdown(["layer", *GRADIENT_METRICS, "flags"], rows)
    if whys:
        text += "\n\nWhere there is no number:\n\n" + markdown(["layer", "why"], whys)
    return text + events_and_skips(events, report.skipped, "Not measured")
