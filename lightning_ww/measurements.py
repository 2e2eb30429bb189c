"""Measurements with more content than a summary and a table of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from typing_extensions import Self, override

from lightning_ww.curvature.density import SpectralDensity
from lightning_ww.history import Findings, Measurement, Moment


class SpectrumFindings(Findings, Protocol):
    """The results of a measurement of the curvature."""

    @property
    def density(self) -> SpectralDensity: ...  # noqa: D102

    @property
    def engine(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class CurvatureMeasurement(Measurement):
    """One measurement of the loss's curvature."""

    density: SpectralDensity  # the raw nodes and weights
    engine: str  # the method of the products with the matrix, in words

    @classmethod
    @override
    def _kept(cls, moment: Moment, findings: Any, metrics: Sequence[str]) -> dict[str, Any]:
        return super()._kept(moment, findings, metrics) | {"density": findings.density, "engine": findings.engine}

    @override
    def rows(self) -> list[dict[str, Any]]:
        return [{"step": self.step, "epoch": self.epoch, "engine": self.engine, **self.summary}]

    @override
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"density": dict(self.density.columns)}

    @classmethod
    @override
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        return super().from_state({**state, "density": SpectralDensity(**state["density"])})
