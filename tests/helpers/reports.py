"""Reports made by hand."""

from __future__ import annotations

from typing import Any

from lightning_ww import LayerReport


def layer(name: str, **values: Any) -> LayerReport:
    described: dict[str, Any] = {"kind": "Linear", "N": 40, "M": 30, "slices": 1, "dtype": "float32"}
    flags = {"is_embedding": False, "is_convolution": False, "is_frozen": False}
    return LayerReport(name=name, **(described | flags | values))
