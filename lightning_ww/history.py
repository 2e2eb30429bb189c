"""What a monitor measured so far: one measurement a moment, bounded, small enough for every checkpoint.

It knows no subject. A monitor's findings are a summary of the model and, for monitors that measure layer by layer, a record
of each layer; what is kept of them is a table of numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

from lightning_ww._pandas import data_frame

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Moment:
    """When a measurement is made. It is taken once, when the measurement is due."""

    number: int  # of the measurement, from 0
    step: int  # optimizer steps made
    logged_step: int  # Lightning's own step axis, on which loggers put it
    epoch: int  # from 0
    is_baseline: bool  # at the start of a fit, before its first step


class LayerRecord(Protocol):
    """What was found of one layer."""

    @property
    def name(self) -> str: ...  # noqa: D102

    def metric(self, name: str) -> float | None:
        """One number by name; ``None`` where it has no value."""


class Skipped(Protocol):
    """A layer that was not measured."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def reason(self) -> str:
        """A code."""

    @property
    def sentence(self) -> str:
        """The reason in words."""


class Findings(Protocol):
    """What one measurement found."""

    @property
    def summary(self) -> Mapping[str, float]:
        """The model at a glance: finite numbers by name."""

    @property
    def layers(self) -> Sequence[LayerRecord]:
        """A record a layer; none where the model is measured as a whole."""

    @property
    def skipped(self) -> Sequence[Skipped]:
        """The layers that were not measured, with reasons."""


@dataclass(frozen=True)
class Measurement:
    """One measurement: when it was made, what it found, and what was flagged."""

    moment: Moment
    summary: Mapping[str, float]  # the model at a glance, by name: "alpha"
    layers: tuple[str, ...] = ()  # none where the model is measured as a whole
    metrics: tuple[str, ...] = ()
    values: Tensor = field(
        default_factory=lambda: torch.empty(0, 0, dtype=torch.float64)
    )  # (layers, metrics), NaN: none
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # flagged layers, by trigger
    fired: tuple[str, ...] = ()  # triggers with flags on enough layers

    @classmethod
    def of(cls, moment: Moment, findings: Findings, metrics: Sequence[str] = ()) -> Self:
        """Take down what is kept of findings: their summary, and these metrics of each layer."""
        return cls(**cls._kept(moment, findings, metrics))

    @classmethod
    def _kept(cls, moment: Moment, findings: Findings, metrics: Sequence[str]) -> dict[str, Any]:
        numbers = [[layer.metric(metric) for metric in metrics] for layer in findings.layers]
        filled = [[float("nan") if number is None else number for number in row] for row in numbers]
        return {
            "moment": moment,
            "summary": dict(findings.summary),
            "layers": tuple(layer.name for layer in findings.layers),
            "metrics": tuple(metrics),
            "values": torch.tensor(filled, dtype=torch.float64).reshape(len(filled), len(metrics)),
        }

    def judged(self, summary: Mapping[str, float], flags: Mapping[str, tuple[str, ...]], fired: Sequence[str]) -> Self:
        """The same with all of its summary, and its flags."""
        return replace(self, summary=dict(summary), flags=dict(flags), fired=tuple(fired))

    @property
    def number(self) -> int:
        """The measurement's number, from 0."""
        return self.moment.number

    @property
    def step(self) -> int:
        """Optimizer steps made before it."""
        return self.moment.step

    @property
    def epoch(self) -> int:
        """The epoch in which it was made, from 0."""
        return self.moment.epoch

    @property
    def is_baseline(self) -> bool:
        """Whether it was made at the start of a fit, before its first step."""
        return self.moment.is_baseline

    def value(self, layer: str, metric: str) -> float | None:
        """One number, or ``None`` where it has no value: the layer was skipped, the metric is undefined or was not kept."""
        if layer not in self.layers or metric not in self.metrics:
            return None
        number = float(self.values[self.layers.index(layer), self.metrics.index(metric)])
        return None if number != number else number

    def rows(self) -> list[dict[str, Any]]:
        """The measurement as rows of a table: one a layer, with its numbers and flags; else one, the summary."""
        when = {"step": self.step, "epoch": self.epoch}
        if not self.metrics:
            return [when | dict(self.summary)]
        flagged = {layer for layers in self.flags.values() for layer in layers}
        rows: list[dict[str, Any]] = []
        for layer in [*self.layers, *sorted(flagged - set(self.layers))]:  # a lost layer has its flag alone
            flags = ", ".join(trigger for trigger, layers in self.flags.items() if layer in layers)
            numbers = {metric: self.value(layer, metric) for metric in self.metrics}
            rows.append({**when, "layer": layer, **numbers, "flags": flags})
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Plain values alone: numbers, strings, lists, dicts, tensors; a checkpoint is read with ``weights_only=True``."""
        return {
            **vars(self),
            "moment": asdict(self.moment),
            "summary": dict(self.summary),
            "layers": list(self.layers),
            "metrics": list(self.metrics),
            "flags": {trigger: list(layers) for trigger, layers in self.flags.items()},
            "fired": list(self.fired),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Build the measurement again from its `state_dict`."""
        return cls(
            **{
                **state,
                "moment": Moment(**state["moment"]),
                "layers": tuple(state["layers"]),
                "metrics": tuple(state["metrics"]),
                "flags": {trigger: tuple(layers) for trigger, layers in state["flags"].items()},
                "fired": tuple(state["fired"]),
            }
        )


K = TypeVar("K", bound=Measurement)


class History(Generic[K]):
    """The measurements of a run, oldest first.

    Args:
        max_measurements: Of more than this, the oldest are dropped; the first ever is kept as the `baseline`.
        kind: The class of the measurements.

    Attributes:
        baseline: The first measurement ever, or ``None``.
        findings: While triggers judge: all that the last measurement found; else ``None``.
        others: While triggers judge: the histories of the other monitors, by prefix and group (``"curvature"``).
    """

    def __init__(self, max_measurements: int = 1000, kind: type[K] = Measurement) -> None:  # type: ignore[assignment]
        self.max_measurements = max_measurements
        self.baseline: K | None = None
        self.findings: Findings | None = None
        self.others: Mapping[str, History[Any]] = {}
        self._kind = kind
        self._measurements: list[K] = []
        self._records: Mapping[str, Any] = {}

    def __len__(self) -> int:
        return len(self._measurements)

    def __iter__(self) -> Iterator[K]:
        return iter(self._measurements)

    def __getitem__(self, index: int) -> K:
        return self._measurements[index]

    @property
    def next_number(self) -> int:
        """The number of the measurement to come."""
        return self._measurements[-1].number + 1 if self._measurements else 0

    def append(self, measurement: K) -> None:
        """Add the latest measurement; one at the start of a resumed fit only if its step is not there already."""
        if measurement.is_baseline and any(past.step == measurement.step for past in self._measurements):
            return
        self.baseline = self.baseline or measurement
        self._measurements = [*self._measurements, measurement][-self.max_measurements :]

    def up_to(
        self,
        measurement: K,
        findings: Findings,
        others: Mapping[str, History[Any]] | None = None,
    ) -> History[K]:
        """The history that triggers judge: with the measurement at hand as its last, and all that it found."""
        seen = copy.copy(self)
        seen._measurements = [*self._measurements, measurement]
        seen.baseline = self.baseline or measurement
        seen.findings = findings
        seen._records = {record.name: record for record in findings.layers}
        seen.others = {name: other.until(measurement.step) for name, other in (others or {}).items()}
        return seen

    def until(self, step: int) -> History[K]:
        """The measurements that are no newer than a step."""
        seen = copy.copy(self)
        seen._measurements = [past for past in self._measurements if past.step <= step]
        return seen

    def record(self, layer: str) -> Any | None:
        """All that the last measurement found of a layer, or ``None`` where it was not measured."""
        return self._records.get(layer)

    def value(self, layer: str, metric: str) -> float | None:
        """A number of the last measurement, or ``None`` where it has no value."""
        record = self.record(layer)
        return self[-1].value(layer, metric) if record is None else record.metric(metric)

    def was_flagged(self, trigger: str, layer: str) -> bool:
        """Whether a layer was flagged at the measurement before the last."""
        return len(self) > 1 and layer in self[-2].flags.get(trigger, ())

    def to_pandas(self) -> pandas.DataFrame:
        """Give the measurements as a table: a row for each layer of each; else one for each measurement.

        Raises:
            ModuleNotFoundError: Without pandas.
        """
        frame = data_frame("History.to_pandas")
        return frame([row for past in self._measurements for row in past.rows()])

    def state_dict(self) -> dict[str, Any]:
        """Plain values alone."""
        return {
            "baseline": None if self.baseline is None else self.baseline.state_dict(),
            "measurements": [past.state_dict() for past in self._measurements],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.baseline = None if state["baseline"] is None else self._kind.from_state(state["baseline"])
        self._measurements = [self._kind.from_state(past) for past in state["measurements"]][-self.max_measurements :]
