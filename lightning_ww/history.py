"""What a monitor measured so far: one record a measurement, bounded, small enough for every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from typing_extensions import Self

from lightning_ww._pandas import data_frame
from lightning_ww.curvature.density import SpectralDensity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas
    from torch import Tensor

    from lightning_ww.triggers.diagnosis import Diagnosis, TriggerName
    from lightning_ww.weights.report import WeightReport


class Record(Protocol):
    """What is remembered of one measurement."""

    @property
    def number(self) -> int: ...  # noqa: D102

    @property
    def step(self) -> int: ...  # noqa: D102

    @property
    def is_baseline(self) -> bool: ...  # noqa: D102

    def rows(self) -> list[dict[str, Any]]:
        """The measurement as rows of a table."""

    def state_dict(self) -> dict[str, Any]:
        """Numbers, strings, lists, dicts and tensors alone: checkpoints are read with ``weights_only=True``."""

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """What `state_dict` was taken of."""


@dataclass(frozen=True)
class Measurement:
    """One measurement of the weights: when it was made, and what it found."""

    number: int  # from 0, in the order in which they were made
    step: int  # optimiser steps done
    epoch: int  # from 0; the epoch in which it was made
    is_baseline: bool  # made at the start of a fit, before its first step
    summary: Mapping[str, float]  # by key, without prefix: "ww/alpha"
    layers: tuple[str, ...]
    metrics: tuple[str, ...]
    values: Tensor  # float64, (layers, metrics); NaN where a metric has no value
    flags: Mapping[TriggerName, tuple[str, ...]]  # flagged layers, by trigger
    fired: tuple[TriggerName, ...]  # triggers with flags on enough layers

    def value(self, layer: str, metric: str) -> float | None:
        """One number, or ``None`` where it has no value: the layer was skipped, the metric undefined or not logged."""
        if layer not in self.layers or metric not in self.metrics:
            return None
        number = float(self.values[self.layers.index(layer), self.metrics.index(metric)])
        return None if number != number else number

    def rows(self) -> list[dict[str, Any]]:
        """One for each layer: step, epoch, layer, the logged metrics, and the flags by name."""
        flagged = {layer for layers in self.flags.values() for layer in layers}
        rows: list[dict[str, Any]] = []
        for layer in [*self.layers, *sorted(flagged - set(self.layers))]:  # a layer that is lost has its flag alone
            flags = ", ".join(trigger for trigger, layers in self.flags.items() if layer in layers)
            numbers = {metric: self.value(layer, metric) for metric in self.metrics}
            rows.append({"step": self.step, "epoch": self.epoch, "layer": layer, **numbers, "flags": flags})
        return rows

    def state_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            **vars(self),
            "summary": dict(self.summary),
            "layers": list(self.layers),
            "metrics": list(self.metrics),
            "flags": {trigger: list(layers) for trigger, layers in self.flags.items()},
            "fired": list(self.fired),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """What `state_dict` was taken of."""
        return cls(
            **{
                **state,
                "layers": tuple(state["layers"]),
                "metrics": tuple(state["metrics"]),
                "flags": {trigger: tuple(layers) for trigger, layers in state["flags"].items()},
                "fired": tuple(state["fired"]),
            }
        )


@dataclass(frozen=True)
class CurvatureMeasurement:
    """One measurement of the loss's curvature: when it was made, and what it found."""

    number: int  # from 0, in the order in which they were made
    step: int  # optimiser steps done
    epoch: int  # from 0; the epoch in which it was made
    is_baseline: bool  # made at the start of a fit, before its first step
    summary: Mapping[str, float]  # by key, without prefix: "curvature/sharpness"
    density: SpectralDensity  # the raw nodes and weights
    engine: str  # how the products were made

    def rows(self) -> list[dict[str, Any]]:
        """One: step, epoch, engine, and the summary."""
        numbers = {key.removeprefix("curvature/"): value for key, value in self.summary.items()}
        return [{"step": self.step, "epoch": self.epoch, "engine": self.engine, **numbers}]

    def state_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**vars(self), "summary": dict(self.summary), "density": dict(self.density.columns)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """What `state_dict` was taken of."""
        return cls(**{**state, "density": SpectralDensity(**state["density"])})


def record(
    report: WeightReport,
    diagnosis: Diagnosis,
    *,
    metrics: Sequence[str],
    summary: Mapping[str, float],
    step: int,
    epoch: int,
    is_baseline: bool,
    number: int,
) -> Measurement:
    """What is kept of a report."""
    numbers = [[layer.metric(metric) for metric in metrics] for layer in report.layers]
    filled = [[float("nan") if number is None else number for number in row] for row in numbers]
    return Measurement(
        number=number,
        step=step,
        epoch=epoch,
        is_baseline=is_baseline,
        summary=dict(summary),
        layers=tuple(layer.name for layer in report.layers),
        metrics=tuple(metrics),
        values=torch.tensor(filled, dtype=torch.float64).reshape(len(filled), len(metrics)),
        flags={trigger: layers for trigger, layers in diagnosis.by_trigger.items() if layers},
        fired=diagnosis.fired,
    )


R = TypeVar("R", bound=Record)


class History(Generic[R]):
    """The measurements of a run, oldest first; of more than ``max_measurements`` the oldest are dropped."""

    def __init__(self, max_measurements: int, kind: type[R]) -> None:
        self.max_measurements = max_measurements
        self._kind = kind
        self._measurements: list[R] = []

    def __len__(self) -> int:
        return len(self._measurements)

    def __iter__(self) -> Iterator[R]:
        return iter(self._measurements)

    def __getitem__(self, index: int) -> R:
        return self._measurements[index]

    @property
    def next_number(self) -> int:
        """Of the measurement to come."""
        return self._measurements[-1].number + 1 if self._measurements else 0

    def append(self, measurement: R) -> None:
        """Add the latest measurement; one at the start of a resumed fit only if its step is not there already."""
        if not measurement.is_baseline or all(past.step != measurement.step for past in self._measurements):
            self._measurements = [*self._measurements, measurement][-self.max_measurements :]

    def to_pandas(self) -> pandas.DataFrame:
        """The measurements as a table: a row for each, and, of the weights, for each layer.

        Raises:
            ModuleNotFoundError: Without pandas.
        """
        frame = data_frame("History.to_pandas")
        return frame([row for past in self._measurements for row in past.rows()])

    def state_dict(self) -> list[dict[str, Any]]:
        """Plain values alone."""
        return [past.state_dict() for past in self._measurements]

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Take up what `state_dict` gave."""
        self._measurements = [self._kind.from_state(past) for past in state][-self.max_measurements :]
