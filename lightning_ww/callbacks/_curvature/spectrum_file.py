"""What is published of a measurement of the curvature: numbers by key, a table, a line of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ww.callbacks._monitor import loggers as _publish
from lightning_ww.curvature.plots.stems import spectrum_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightning_ww.callbacks._curvature.reading import CurvatureFound
    from lightning_ww.callbacks._monitor.guard import Guard
    from lightning_ww.callbacks._monitor.lightning import Trainer
    from lightning_ww.callbacks.curvature import CurvatureMonitor
    from lightning_ww.history import CurvatureMeasurement

SETTINGS = ("matrix", "num_steps", "num_probes", "storage", "bn_mode")
"""Arguments of the monitor that stand in the table."""

NUM_LOGGED_EIGENVALUES = 5
"""Curves of the largest eigenvalues: the first outliers, of which a classifier has about as many as classes."""


def summary(found: CurvatureFound, num_training_samples: int | None) -> dict[str, float]:
    """The numbers that have a value, by key."""
    density, stable = found.density, found.stability
    values: dict[str, float | None] = {
        "sharpness": density.sharpness,
        "sharpness_residual": float(density.residuals[density.nodes.argmax()]),
        "lambda_min": density.lambda_min,
        "lambda_min_residual": float(density.residuals[density.nodes.argmin()]),
        "trace": density.trace,
        "trace_stderr": density.trace_stderr,
        "negative_mass": density.negative_mass,
        "near_zero_mass": density.near_zero_mass,
        "num_outliers": density.num_outliers,
        "bulk_edge": density.bulk_edge,
        "condition": density.condition,
        "log_pseudodet": density.log_pseudodet,
        "batch_size": found.num_samples,
    }
    if num_training_samples is not None and num_training_samples > 1:
        values["effective_dimension"] = density.effective_dimension(num_training_samples)
        values["llc_quadratic"] = density.llc_quadratic(num_training_samples)
    if stable is not None:
        values["lr_sharpness"] = stable.lr_sharpness
        values["stability_edge"] = stable.stability_edge
        values["optimizer_sharpness"] = stable.optimizer_sharpness
    return {f"curvature/{name}": float(value) for name, value in values.items() if value is not None}


def top_eigenvalues(found: CurvatureFound) -> dict[str, float]:
    """``curvature.top_eigenvalues/<k>``, of those that have converged."""
    tops = enumerate(found.density.top_eigenvalues[:NUM_LOGGED_EIGENVALUES], start=1)
    return {f"curvature.top_eigenvalues/{k}": top.value for k, top in tops if top.converged}


def publish(
    trainer: Trainer,
    monitor: CurvatureMonitor,
    guard: Guard,
    found: CurvatureFound,
    measurement: CurvatureMeasurement,
    step: int,
    file: JsonLines | None,
) -> None:
    """Log numbers and a table, and add a line to the file, if one is given."""
    prefix, density = monitor.log_key_prefix, found.density
    settings = {name: getattr(monitor, name) for name in SETTINGS}
    scalars = {prefix + key: value for key, value in {**measurement.summary, **top_eigenvalues(found)}.items()}
    facts = {
        **settings,
        "matrix": found.engine,
        "parameters": f"{density.dim:,}",
        "samples": f"{found.num_samples:,}",
        "trace": f"{density.trace:.4g} ± {density.trace_stderr:.2g}",
    }
    texts = {f"{prefix}curvature/report": spectrum_table(density, {name: str(fact) for name, fact in facts.items()})}
    _publish.to_loggers(trainer, guard, step, scalars, texts=texts)
    if file is not None and file.is_wanted and not getattr(trainer, "fast_dev_run", False):
        guard.run(trainer, lambda: file.append(measurement), f"write `{file}`")


def slow(last: CurvatureMeasurement | None, epoch: int, training: float, settings: Mapping[str, Any]) -> str | None:
    """If the measurement of this epoch outlasted its training: that it did, and what to do about it."""
    if last is None or last.is_baseline or last.epoch != epoch or last.summary["curvature/seconds"] <= training:
        return None
    return (
        f"took {last.summary['curvature/seconds']:.2g} s for a measurement, longer than the rest of its epoch "
        f"({training:.2g} s). To measure less often, raise `every_n_epochs` ({settings['every_n_epochs']}); to measure "
        f"faster, lower `num_steps` ({settings['num_steps']}), pass a smaller batch as `data=`, or take "
        '`matrix="ggn"`.'
    )


class JsonLines:
    """A file with a line for each measurement of one run."""

    def __init__(self, directory: str | None, prefix: str) -> None:
        """``directory``: the logger's; ``None``, or another machine's, if there is no file to be written."""
        self.is_wanted = bool(directory) and "://" not in str(directory)
        self._path = Path(directory or "", f"{prefix.replace('/', '-')}curvature.jsonl")
        self._is_open = False

    def __str__(self) -> str:
        return str(self._path)

    def append(self, measurement: CurvatureMeasurement) -> None:
        """Add a measurement. The first decides: a new run takes a name that is free, a resumed one goes on."""
        if not self._is_open:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            taken = sorted(self._path.parent.glob(f"{self._path.stem}*.jsonl"), key=lambda path: path.stat().st_mtime)
            if taken and measurement.number == 0:
                self._path = self._path.with_name(f"{self._path.stem}.{len(taken)}.jsonl")
            elif taken:
                self._path = taken[-1]
                lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
                kept = [line for line in lines if json.loads(line)["number"] < measurement.number]
                self._path.write_text("".join(kept), encoding="utf-8")
            self._is_open = True
        state: dict[str, Any] = measurement.state_dict()
        state["density"] = {
            name: value.tolist() if hasattr(value, "tolist") else value for name, value in state["density"].items()
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(state) + "\n")


def num_training_samples(loader: Any) -> int | None:
    """The length of the training data, where it is known."""
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError, NotImplementedError):
        return None
