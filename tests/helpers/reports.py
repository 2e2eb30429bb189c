"""Reports made by hand, what triggers make of a row of them, and the report of a model with layers of three kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lightning_ww import (
    Diagnosis,
    History,
    LayerReport,
    Measurement,
    Moment,
    SkippedLayer,
    Trigger,
    WeightReport,
    analyze,
    diagnose,
)


def layer(name: str, **values: Any) -> LayerReport:
    """A layer with these numbers."""
    described: dict[str, Any] = {"kind": "Linear", "N": 40, "M": 30, "slices": 1, "dtype": "float32"}
    flags = {"is_embedding": False, "is_convolution": False, "is_frozen": False}
    return LayerReport(name=name, **(described | flags | values))


def report(*layers: LayerReport, skipped: tuple[SkippedLayer, ...] = ()) -> WeightReport:
    """A report of these layers."""
    return WeightReport(layers, skipped, 0.0)


def followed(reports: Sequence[Any], *triggers: Trigger) -> list[Diagnosis]:
    """What the triggers say of each report, each after those before it."""
    history, found = History[Measurement](), []
    for i, one in enumerate(reports):
        needed = [name for trigger in triggers for name in trigger.needs]
        measurement = Measurement.of(Moment(i, i, i, i, i == 0), one, needed)
        found.append(diagnose(history.up_to(measurement, one), triggers))
        history.append(measurement.judged({}, found[-1].by_trigger, found[-1].fired, found[-1].layers_from_start))
    return found


def heavy_noisy_and_narrow() -> WeightReport:
    """A layer with a heavy tail and one large element, one of noise, one too narrow to fit."""
    torch.manual_seed(0)
    first = nn.Linear(200, 100)
    model = nn.Sequential(first, nn.Linear(100, 60), nn.Linear(60, 3))
    with torch.no_grad():
        u, v = torch.randn(100, 20), torch.randn(20, 200) * torch.logspace(0, -1.2, 20)[:, None]
        first.weight.add_(u @ v / 200)
        first.weight[3, 5] = 1.5
    return analyze(model)


TIMES = ("seconds", "overhead")
"""Numbers of a summary that no two runs have in common."""


def plain(layer: LayerReport) -> dict[str, Any]:
    """All that a layer's report says, to be compared to the last bit."""
    values = {name: value for name, value in vars(layer).items() if name not in ("spectrum", "kept_shuffle")}
    values |= {} if layer.kept_shuffle is None else vars(layer.kept_shuffle)
    return {name: value.tobytes() if hasattr(value, "tobytes") else value for name, value in values.items()}


def all_of_run(monitor: Any) -> Any:
    """All that a monitor of the weights has found in a run, apart from the time it took, to be compared and pickled."""
    summaries = [{k: v for k, v in past.summary.items() if k not in TIMES} for past in monitor.history]
    values = [past.values.numpy().tobytes() for past in monitor.history]
    skips = [(skip.name, skip.reason, skip.sentence) for skip in monitor.report.skipped]
    return (
        [plain(layer) for layer in monitor.report.layers],
        summaries,
        values,
        skips,
        [past.layers for past in monitor.history],
    )
