"""Whether a metric of the Trainer still improves, for a stop that needs its consent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lightning_ww import _checks

Mode = Literal["min", "max"]
"""Whether a smaller or a larger value is better."""


@dataclass
class Improvement:
    """The best value of a metric so far, and the number of looks in a row at which it was not beaten."""

    name: str
    mode: Mode
    min_delta: float
    best: float | None = None
    num_stale: int = 0
    was_missed: bool = False

    def look(self, metrics: Mapping[str, Any]) -> str | None:
        """Compare the present value with the best one; if there is none for the first time, return a sentence on it.

        A value that is not finite is no improvement. Without a value, nothing changes.
        """
        if self.name not in metrics:
            was_missed, self.was_missed = self.was_missed, True
            known = ", ".join(sorted(metrics)) or "none"
            said = f"finds no `{self.name}`, and without it only `nonfinite` stops. Logged are: {known}."
            return None if was_missed else said
        value = float(metrics[self.name])
        better = 1.0 if self.mode == "max" else -1.0
        if math.isfinite(value) and (self.best is None or better * (value - self.best) > self.min_delta):
            self.best, self.num_stale = value, 0
        else:
            self.num_stale += 1
        return None

    @property
    def sentence(self) -> str:
        """The looks without improvement in words, after a space; empty without any."""
        if self.best is None or not self.num_stale:
            return ""
        return f" `{self.name}` was not better than {self.best:.4g} at {self.num_stale} measurements."

    def state_dict(self) -> dict[str, Any]:
        """The best value, and the number of looks."""
        return {"best": self.best, "num_stale": self.num_stale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        best = state["best"]
        self.best, self.num_stale = None if best is None else float(best), int(state["num_stale"])


def checked(call: str, name: str | None, mode: Mode, min_delta: float) -> tuple[str | None, Mode, float]:
    """The arguments ``require_metric``, ``mode`` and ``min_delta`` of ``call``.

    Raises:
        ArgumentError: If one is out of its domain.
    """
    if name is not None and (not isinstance(name, str) or not name):
        raise _checks.unfit(call, "require_metric", name, "a key of `callback_metrics`, or `None`")
    return name, _checks.choice(call, "mode", mode, get_args(Mode)), _checks.number(call, "min_delta", min_delta)
