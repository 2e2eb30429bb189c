"""The runs of suite A as they were written: their kind, the triggers that fired, and when they failed."""

from __future__ import annotations

from typing import Any

import declared
from declared import SETTINGS
from scoring import failed_at

Run = dict[str, Any]

KIND = {setting.name: setting for setting in SETTINGS}


def fired(run: Run) -> list[list[str]]:
    """The triggers that fired at each epoch, those of the weights, of the curvature and of the gradients."""
    kinds = [run["fired"], run["curvature fired"], run["gradients fired"]]
    longest = len(run["epochs"])
    full = [kind + [[]] * (longest - len(kind)) for kind in kinds]
    return [[*a, *b, *c] for a, b, c in zip(*full, strict=True)]


def begins(run: Run) -> int:
    """The epoch, from 0, at which a run's fault begins."""
    return declared.START if KIND[run["setting"]].fault not in ("", "none") else 0


def is_abrupt(run: Run) -> bool:
    """Whether its fault acts at once."""
    return KIND[run["setting"]].fault in declared.ABRUPT


def failure(run: Run) -> int | None:
    """The epoch, from 1, at which a run failed, by its fault if it has one."""
    return failed_at([epoch["test_accuracy"] for epoch in run["epochs"]], run["chance"], begins(run))


def leads_of(failed: list[Run], alarms: list[int | None]) -> list[int]:
    """By how many epochs each alarm came before its run failed, of those that did."""
    pairs = [(failure(run), at) for run, at in zip(failed, alarms, strict=True)]
    return [end - at for end, at in pairs if end is not None and at is not None and at < end]


def delays_of(failed: list[Run], alarms: list[int | None]) -> list[int]:
    """How many epochs of the fault had been trained at each alarm, of those that came after it began."""
    pairs = [(begins(run), at) for run, at in zip(failed, alarms, strict=True)]
    return [at - since for since, at in pairs if at is not None and at > since]
