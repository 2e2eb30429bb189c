"""The gradients of the layers after a layer."""

from __future__ import annotations

from typing import Any

from lightning_ww.history import History


def norms_after(history: History[Any], layer: str, metric: str = "norm") -> list[float]:
    """The gradient norms at the last measurement of the layers that a backward pass reaches before a layer."""
    findings, own = history.findings, history.record(layer)
    depth = getattr(own, "depth", None)
    if findings is None or depth is None:
        return []
    after = [record for record in findings.layers if (getattr(record, "depth", None) or 0) > depth]
    return [value for record in after if (value := record.metric(metric)) is not None]
