"""The history of a monitor: its measurements so far, bounded in number, and small enough for every checkpoint.

This file does not depend on what is measured. A monitor's findings are a summary of the model and, for monitors that measure
layer by layer, a record of each layer. A measurement keeps the summary and a table of the layers' numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from typing_extensions import Self

from lightning_ww._columns import packed, unpacked
from lightning_ww._errors import NoValueError
from lightning_ww._pandas import data_frame

if TYPE_CHECKING:
    import pandas

Named = Mapping[str, tuple[str, ...]]
"""Layers, by trigger."""

CHUNK = 100
"""The number of measurements that are packed together for checkpoints; what is packed is not packed again."""


@dataclass(frozen=True)
class Moment:
    """The time of a measurement, fixed when the measurement is due."""

    number: int  # the measurement's number, from 0
    step: int  # optimizer steps made so far
    logged_step: int  # the step on Lightning's own axis, which loggers use
    epoch: int  # from 0
    is_baseline: bool  # whether it is at the start of a fit, before its first step


class LayerRecord(Protocol):
    """The results of one layer."""

    @property
    def name(self) -> str: ...  # noqa: D102

    def metric(self, name: str) -> float | None:
        """A metric by name, or ``None`` where it has no value."""


class Skipped(Protocol):
    """A layer that was not measured."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def reason(self) -> str:
        """The reason as a code."""

    @property
    def sentence(self) -> str:
        """The reason in words."""


class Findings(Protocol):
    """The results of one measurement."""

    @property
    def summary(self) -> Mapping[str, float]:
        """The numbers of the model as a whole, all of them finite, by name."""

    @property
    def layers(self) -> Sequence[LayerRecord]:
        """A record for each layer; empty where the model is measured as a whole."""

    @property
    def skipped(self) -> Sequence[Skipped]:
        """The layers that were not measured, with reasons."""


@dataclass(frozen=True)
class Measurement:
    """One measurement: its time, its results, and its flags."""

    moment: Moment
    summary: Mapping[str, float]  # the numbers of the model as a whole, by name: "alpha"
    layers: tuple[str, ...] = ()  # empty where the model is measured as a whole
    metrics: tuple[str, ...] = ()
    values: Tensor = field(
        default_factory=lambda: torch.empty(0, 0, dtype=torch.float64)
    )  # shape (layers, metrics), NaN where there is no value
    flags: Named = field(default_factory=dict)  # flagged layers, by trigger
    fired: tuple[str, ...] = ()  # triggers with flags on enough layers
    from_start: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # where a condition holds since the first one

    @classmethod
    def of(cls, moment: Moment, findings: Findings, metrics: Sequence[str] = ()) -> Self:
        """Make a measurement from findings: their summary, and these metrics of each layer."""
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

    def judged(self, summary: Mapping[str, float], flags: Named, fired: Sequence[str], from_start: Named) -> Self:
        """A copy with this summary, these flags, and these conditions that hold from the start."""
        now = {"summary": dict(summary), "flags": dict(flags), "fired": tuple(fired), "from_start": dict(from_start)}
        return replace(self, **now)  # type: ignore[arg-type]

    @property
    def number(self) -> int:
        """The measurement's number, from 0."""
        return self.moment.number

    @property
    def step(self) -> int:
        """The number of optimizer steps made before it."""
        return self.moment.step

    @property
    def epoch(self) -> int:
        """The epoch in which it was made, from 0."""
        return self.moment.epoch

    @property
    def is_baseline(self) -> bool:
        """Tell whether it was made at the start of a fit, before its first step."""
        return self.moment.is_baseline

    def value(self, layer: str, metric: str) -> float | None:
        """A metric of a layer, or ``None`` if the layer was skipped, or the metric is undefined or was not kept.

        The layer ``""`` is the model as a whole, whose numbers are the summary.
        """
        if not layer:
            return self.summary.get(metric)
        if layer not in self.layers or metric not in self.metrics:
            return None
        number = float(self.values[self.layers.index(layer), self.metrics.index(metric)])
        return None if number != number else number

    def rows(self) -> list[dict[str, Any]]:
        """Rows of a table: one for each layer, with its numbers and flags; without metrics of layers, the summary alone."""
        when = {"step": self.step, "epoch": self.epoch}
        if not self.metrics:
            return [when | dict(self.summary)]
        flagged = {layer for layers in self.flags.values() for layer in layers}
        rows: list[dict[str, Any]] = []
        for layer in [*self.layers, *sorted(flagged - {*self.layers, ""})]:  # an unmeasured layer has flags only
            flags = ", ".join(trigger for trigger, layers in self.flags.items() if layer in layers)
            numbers = {metric: self.value(layer, metric) for metric in self.metrics}
            rows.append({**when, "layer": layer, **numbers, "flags": flags})
        return rows

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values (numbers, strings, lists, dicts, tensors), which ``weights_only=True`` can load."""
        return {
            **vars(self),
            "moment": asdict(self.moment),
            "summary": dict(self.summary),
            "layers": list(self.layers),
            "metrics": list(self.metrics),
            "flags": {trigger: list(layers) for trigger, layers in self.flags.items()},
            "fired": list(self.fired),
            "from_start": {trigger: list(layers) for trigger, layers in self.from_start.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild a measurement from its `state_dict`; names that a measurement does not have are ignored."""
        known = {one.name for one in fields(cls)}
        return cls(
            **{
                **{name: value for name, value in state.items() if name in known},
                "moment": Moment(**state["moment"]),
                "layers": tuple(state["layers"]),
                "metrics": tuple(state["metrics"]),
                "flags": _named(state["flags"]),
                "fired": tuple(state["fired"]),
                "from_start": _named(state.get("from_start", {})),
            }
        )


def _named(layers: Mapping[str, Sequence[str]]) -> Named:
    return {trigger: tuple(names) for trigger, names in layers.items()}


K = TypeVar("K", bound=Measurement)


class History(Generic[K]):
    """The measurements of a run, oldest first.

    Args:
        max_measurements: The most measurements that are kept. Beyond that the oldest are dropped, but the first one stays as
            the `baseline`. Default: ``1000``.
        kind: The class of the measurements. Default: `Measurement`.

    Attributes:
        baseline: The first measurement ever, or ``None``.
        findings: The findings of the last measurement; ``None`` before the first one, also of a resumed fit.
        others: The histories of the other monitors while triggers judge, by group (``"curvature"``), or by prefix and group
            if their `log_key_prefix` is different; else empty. They end at the same step, or at an earlier one if the other
            monitor measures later or comes later in the Trainer's list of callbacks.
    """

    def __init__(self, max_measurements: int = 1000, kind: type[K] = Measurement) -> None:  # type: ignore[assignment]
        self.max_measurements = max_measurements
        self.baseline: K | None = None
        self.findings: Findings | None = None
        self.others: Mapping[str, History[Any]] = {}
        self._kind = kind
        self._measurements: list[K] = []
        # chunks for checkpoints by number, each with its first and last measurement
        self._packed: dict[int, tuple[tuple[int, int], dict[str, Any]]] = {}
        self._records: Mapping[str, Any] = {}

    def __len__(self) -> int:
        return len(self._measurements)

    def __iter__(self) -> Iterator[K]:
        return iter(self._measurements)

    def __getitem__(self, index: int) -> K:
        return self._measurements[index]

    @property
    def next_number(self) -> int:
        """The number of the next measurement."""
        return self._measurements[-1].number + 1 if self._measurements else 0

    def append(self, measurement: K, findings: Findings | None = None) -> None:
        """Add the latest measurement, unless it is at the start of a resumed fit and its step is in the history already.

        Args:
            measurement: The measurement.
            findings: Its findings, which are kept until the next measurement.
        """
        self._find(findings)
        if measurement.is_baseline and any(past.step == measurement.step for past in self._measurements):
            return
        self.baseline = self.baseline or measurement
        self._measurements = [*self._measurements, measurement][-self.max_measurements :]

    def amend(self, measurement: K, numbers: Mapping[str, float]) -> K:
        """Add numbers to the summary of the latest measurement, if it was added; return it with these numbers."""
        amended = replace(measurement, summary={**measurement.summary, **numbers})
        if self._measurements and self._measurements[-1] is measurement:
            self._measurements = [*self._measurements[:-1], amended]
            self._packed.pop(amended.number // CHUNK, None)
            self.baseline = amended if self.baseline is measurement else self.baseline
        return amended

    def up_to(
        self,
        measurement: K,
        findings: Findings,
        others: Mapping[str, History[Any]] | None = None,
    ) -> History[K]:
        """The history that triggers judge: it ends with the new measurement, and has the findings."""
        seen = copy.copy(self)
        seen._measurements = [*self._measurements, measurement]
        seen.baseline = self.baseline or measurement
        seen._find(findings)
        seen.others = {name: other.until(measurement.step) for name, other in (others or {}).items()}
        return seen

    def until(self, step: int) -> History[K]:
        """The history up to and including a step."""
        seen = copy.copy(self)
        seen._measurements = [past for past in self._measurements if past.step <= step]
        if len(seen) < len(self):
            seen._find(None)
        return seen

    def _find(self, findings: Findings | None) -> None:
        self.findings = findings
        self._records = {} if findings is None else {record.name: record for record in findings.layers}

    def record(self, layer: str) -> Any | None:
        """The record of a layer in the last measurement, or ``None`` if the layer was not measured."""
        return self._records.get(layer)

    def value(self, layer: str, metric: str) -> float | None:
        """A metric of a layer in the last measurement, or ``None``; of the layer ``""``, a number of the summary."""
        record = self.record(layer)
        if record is not None:
            number: float | None = record.metric(metric)
            return number
        return self[-1].value(layer, metric) if len(self) else None

    def was_flagged(self, trigger: str, layer: str) -> bool:
        """Tell whether a layer was flagged at the measurement before the last, or its condition held from the start."""
        before = self[-2] if len(self) > 1 else None
        return before is not None and layer in (*before.flags.get(trigger, ()), *before.from_start.get(trigger, ()))

    def to_pandas(self) -> pandas.DataFrame:
        """Return a table with a row for each layer of each measurement; without metrics of layers, for each measurement.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        frame = data_frame("History.to_pandas")
        return frame([row for past in self._measurements for row in past.rows()])

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values; the measurements are packed into columns, a hundred at a time."""
        chunks: dict[int, list[K]] = {}
        for past in self._measurements:
            chunks.setdefault(past.number // CHUNK, []).append(past)
        packs = {}
        for number, some in chunks.items():
            known, ends = self._packed.get(number), (some[0].number, some[-1].number)
            is_known = known is not None and known[0] == ends
            packs[number] = known if known is not None and is_known else (ends, packed([m.state_dict() for m in some]))
        self._packed = packs
        return {
            "baseline": None if self.baseline is None else self.baseline.state_dict(),
            "measurements": [columns for _, columns in packs.values()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> list[str]:
        """Restore the state that `state_dict` returned; return names in its measurements that are not known."""
        states = [one for columns in state["measurements"] for one in unpacked(columns)]
        past = [self._kind.from_state(measurement) for measurement in states]
        baseline = None if state["baseline"] is None else self._kind.from_state(state["baseline"])
        if baseline is None and past:
            raise NoValueError("it has measurements, but no first one")
        self.baseline, self._measurements, self._packed = baseline, past[-self.max_measurements :], {}
        known = {one.name for one in fields(self._kind)}
        return sorted({str(name) for measurement in states for name in measurement.keys() - known})
