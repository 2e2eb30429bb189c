"""The gradients of the layers after a layer."""

from __future__ import annotations

from typing import Any

from lightning_ww.history import History


def layers_after(history: History[Any], layer: str) -> list[str]:
    """The layers that a backward pass reaches before a layer."""
    findings, own = history.findings, history.record(layer)
    depth = getattr(own, "depth", None)
    if findings is None or depth is None:
        return []
    return [record.name for record in findings.layers if (getattr(record, "depth", None) or 0) > depth]


def norms_after(history: History[Any], layer: str, metric: str = "norm") -> list[float]:
    """The gradient norms of these layers at the last measurement."""
    return [value for name in layers_after(history, layer) if (value := history.value(name, metric)) is not None]
