"""The file of spectra, with a line for each measurement of the curvature, nodes and weights included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_ww.measurements import CurvatureMeasurement


class SpectrumFile:
    """A file with a line for each measurement of one run.

    Args:
        directory: The logger's directory; for ``None`` or a directory on another machine, no file is written.
        prefix: The prefix of the monitor's keys, and of the file's name.
    """

    def __init__(self, directory: str | None, prefix: str) -> None:
        self.is_wanted = bool(directory) and "://" not in str(directory)
        self._path = Path(directory or "", f"{prefix.replace('/', '-')}curvature.jsonl")
        self._is_open = False

    def __str__(self) -> str:
        return str(self._path)

    def append(self, measurement: CurvatureMeasurement) -> None:
        """Add a measurement. At the first one a new run takes a free file name, and a resumed run continues its file."""
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
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_line(measurement)) + "\n")


def _line(measurement: CurvatureMeasurement) -> dict[str, Any]:
    density = {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in measurement.density.columns.items()
    }
    return {
        "number": measurement.number,
        "step": measurement.step,
        "epoch": measurement.epoch,
        "is_baseline": measurement.is_baseline,
        "summary": dict(measurement.summary),
        "density": density,
        "engine": measurement.engine,
    }
