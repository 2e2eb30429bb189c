"""`events.jsonl`: a line for each flag that rose and for each stop, for scripts that watch a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import Trainer
    from lightning_ww.history import Measurement, Moment
    from lightning_ww.triggers.diagnosis import Flag

NAME = "events.jsonl"
"""The name of the file in the logger's directory."""


@dataclass(frozen=True)
class EventFile:
    """The file of a fit, shared by all our callbacks; lines are only ever added to it.

    Each line is an object of JSON: ``time`` (UTC), ``run`` (the logger's version), ``event`` (``"from_start"``, ``"flag"`` or
    ``"stop"``), ``step``, ``epoch``, ``trigger``, ``layer`` (``""``: the model as a whole), ``evidence``, ``meaning`` and
    ``lever``. A stop has the list of its ``layers``, too.
    """

    folder: Path | None  # None: nothing is written
    run: str = ""

    @classmethod
    def of(cls, trainer: Trainer) -> EventFile:
        """The file in the directory of the Trainer's first logger, if that is on this machine; a collective call."""
        directory = trainer.log_dir if trainer.loggers else None  # read on every rank, since it is broadcast
        is_wanted = directory and "://" not in str(directory) and not getattr(trainer, "fast_dev_run", False)
        if not is_wanted or not trainer.is_global_zero:
            return cls(None)
        run = ""
        with suppress(Exception):  # whatever a logger of the user's does
            run = str(trainer.loggers[0].version)
        return cls(Path(str(directory)), run)

    def append(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Add lines, with the time at which they are written."""
        if self.folder is None or not events:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        first = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), "run": self.run}
        with (self.folder / NAME).open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps({**first, **event}, ensure_ascii=False) + "\n" for event in events))


def flag_event(event: str, moment: Moment | Measurement, flag: Flag) -> dict[str, Any]:
    """The event of a flag."""
    return {"event": event, "step": moment.step, "epoch": moment.epoch, **vars(flag)}
