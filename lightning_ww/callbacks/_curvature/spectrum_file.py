"""The file of spectra, with a line for each measurement of the curvature, nodes and weights included."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_ww._files import written_beside

if TYPE_CHECKING:
    from lightning_ww.measurements import CurvatureMeasurement


class SpectrumFile:
    """A file with a line for each measurement of one run, which belongs to it by its name and the run's code in each line.

    Args:
        directory: The logger's directory; for ``None`` or a directory on another machine, no file is written.
        prefix: The prefix of the monitor's keys, and of the file's name.
        state: The state that `state_dict` returned, in a resumed run. Default: ``None``.
    """

    def __init__(self, directory: str | None, prefix: str, state: Any = None) -> None:
        self.is_wanted = bool(directory) and "://" not in str(directory)
        self._folder, self._stem = Path(directory or ""), f"{prefix.replace('/', '-')}curvature"
        known = state if isinstance(state, dict) else {}
        self._run, self._name = str(known.get("run") or secrets.token_hex(6)), known.get("name")
        self._is_open = False

    def __str__(self) -> str:
        return str(self._path)

    @property
    def _path(self) -> Path:
        return self._folder / (str(self._name) if self._name else f"{self._stem}.jsonl")

    def state_dict(self) -> dict[str, Any]:
        """The run's code, and the name of its file."""
        return {"run": self._run, "name": self._name}

    def append(self, measurement: CurvatureMeasurement) -> str | None:
        """Add a measurement; at the first one, choose a free name, or in a resumed run cut what came after the checkpoint.

        Returns:
            A sentence if lines were dropped because they could not be read, or ``None``.

        Raises:
            OSError: If the file cannot be written. It has whole lines only at the next success.
        """
        said = None if self._is_open and self._path.is_file() else self._open(measurement.number)
        self._is_open = False  # a write that fails may leave half a line
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": self._run, **_line(measurement)}) + "\n")
        self._is_open = True
        return said

    def _open(self, number: int) -> str | None:
        """Find the run's file, and keep its whole lines of measurements before this one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        is_taken = self._path.exists() and not self._path.is_file()  # a pipe would be waited for
        if self._name is None or is_taken or _Lines(self._path).is_of_another(self._run):
            self._name = self._free_name()
        lines = _Lines(self._path)
        if lines.are_whole and all(known < number for known in lines.numbers):
            return None
        with written_beside(self._path) as partial:
            partial.write_text("".join(lines.before(number)), encoding="utf-8")
        if not lines.num_unreadable:
            return None
        return f"dropped {lines.num_unreadable} of the lines of `{self._path}`, which it could not read."

    def _free_name(self) -> str:
        """A name that no file has, numbered on from those in the folder."""
        ours = re.compile(rf"{re.escape(self._stem)}(?:\.(\d+))?\.jsonl")
        taken = [int(match[1] or 0) for path in self._folder.iterdir() if (match := ours.fullmatch(path.name))]
        return f"{self._stem}.{max(taken) + 1}.jsonl" if taken else f"{self._stem}.jsonl"


class _Lines:
    """The lines of a file, read with care."""

    def __init__(self, path: Path) -> None:
        text = path.read_bytes().decode("utf-8", errors="replace") if path.is_file() else ""
        self._texts: list[str] = []
        self._records: list[dict[str, Any]] = []
        self.num_unreadable = 0
        for line in text.splitlines(keepends=True):
            try:
                record = json.loads(line)
                self._records.append({"number": int(record["number"]), "run": record.get("run")})
                self._texts.append(line.rstrip("\r\n") + "\n")
            except (ValueError, TypeError, KeyError, AttributeError):  # half a line, or someone else's
                self.num_unreadable += 1
        self.are_whole = not self.num_unreadable and (not text or text.endswith("\n"))

    @property
    def numbers(self) -> list[int]:
        """The numbers of the measurements."""
        return [record["number"] for record in self._records]

    def is_of_another(self, run: str) -> bool:
        """Tell whether a line is of another run."""
        return any(record["run"] not in (None, run) for record in self._records)

    def before(self, number: int) -> list[str]:
        """The lines of measurements before this one."""
        return [text for text, known in zip(self._texts, self.numbers, strict=True) if known < number]


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
