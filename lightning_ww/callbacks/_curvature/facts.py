"""The settings and numbers of a measurement in words, for its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning_ww._torch import plain_name

if TYPE_CHECKING:
    from lightning_ww.callbacks._curvature.findings import CurvatureFindings


def facts_of(findings: CurvatureFindings, settings: Mapping[str, Any]) -> dict[str, str]:
    """The facts of a measurement by name, those of the monitor's ``settings`` among them."""
    reading = findings.reading
    density = reading.density
    left_out = ", ".join(plain_name(name) for name in reading.left_out)
    error = "" if density.trace_stderr is None else f" ± {density.trace_stderr:.2g}"
    return {
        "matrix": reading.engine,
        **{name: str(value) for name, value in settings.items()},
        "storage": reading.storage,
        "parameters": f"{density.dim:,}",
        "samples": "unknown" if reading.num_samples is None else f"{reading.num_samples:,}",
        **({"left out": left_out} if left_out else {}),
        "trace": f"{density.trace:.4g}{error}",
        **{name: estimate.in_words for name, estimate in findings.estimates.items()},
    }
