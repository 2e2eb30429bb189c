"""The numbers of a layer and of a model, from those of their parameters, with the reasons where there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from lightning_ww.gradients.layers import ParametersOfLayer
from lightning_ww.gradients.metrics import GRADIENT_METRICS
from lightning_ww.gradients.report import LayerGradients

NO_STEP = "no optimizer step has been made since the last measurement"
NO_GRADIENT = "no gradient has reached it at the last step, or no optimizer has it"
NOT_CLOSE = "this step was not expected to be reported, so that no copy was taken before it"
NONE_FINITE = "no step since the last measurement had a finite gradient"
ZERO = "its parameters are zero"


def numbers_of(rows: Sequence[Mapping[str, float]], sizes: Sequence[int]) -> dict[str, float | None]:
    """The numbers of some parameters together, from those of each and their sizes."""

    def known(name: str) -> list[float]:
        return [row[name] for row in rows if name in row]

    def norm(name: str, among: str = "") -> float | None:
        values = [row[name] for row in rows if name in row and (among or name) in row]
        return sum(value**2 for value in values) ** 0.5 if values else None

    seen = sum(size for size, row in zip(sizes, rows, strict=True) if "zeros" in row)
    clipped, stepped, update = (norm(name) for name in ("clipped_norm", "stepped_norm", "update_norm"))
    whole = norm("norm", "clipped_norm")
    return {
        "norm": norm("norm"),
        "clip_factor": clipped / whole if clipped and whole else None,
        "update_ratio": update / stepped if update is not None and stepped else None,
        "zero_share": sum(known("zeros")) / seen if seen else None,
        "nonfinite_share": sum(known("bad")) / seen if seen else None,
        "weight_norm": norm("weight_norm"),
        "weight_max": max(known("weight_max"), default=None),
    }


def layer_of(
    layer: ParametersOfLayer,
    rows: Sequence[Mapping[str, float]],
    highest: float,
    depth: int | None,
    *,
    has_step: bool,
) -> LayerGradients:
    """The numbers of a layer, from those of its parameters."""
    sizes = [parameter.numel() for parameter in layer.parameters]
    numbers = {**numbers_of(rows, sizes), "highest_norm": highest if highest >= 0 else None}
    missing = NO_STEP if not has_step else NO_GRADIENT if numbers["norm"] is None else NOT_CLOSE
    reasons = {name: missing for name, value in numbers.items() if value is None}
    if has_step and numbers["highest_norm"] is None:
        reasons["highest_norm"] = NONE_FINITE
    if numbers["weight_norm"] == 0 and numbers["zero_share"] is not None:
        reasons["update_ratio"] = ZERO
    for name, value in numbers.items():
        if value is not None and not isfinite(value):
            reasons[name], numbers[name] = f"not finite ({value})", None
    named: dict[str, Any] = {name: numbers[name] for name in GRADIENT_METRICS}
    reasons = {name: reasons[name] for name in GRADIENT_METRICS if name in reasons}
    return LayerGradients(
        name=layer.name,
        kind=layer.kind,
        num_elements=sum(sizes),
        is_embedding=layer.is_embedding,
        is_factor=layer.is_factor,
        depth=depth,
        reasons=reasons,
        **named,
    )
