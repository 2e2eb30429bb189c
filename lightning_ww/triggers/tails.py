"""The layers whose alpha is judged: those with enough eigenvalues, in the middle of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_ww.history import History
    from lightning_ww.triggers.trigger import Trigger

FEWEST_EIGENVALUES = 50
"""The fewest eigenvalues of a layer whose alpha is judged."""


def middle_layers(trigger: Trigger, history: History[Any]) -> list[str]:
    """The eligible layers, except the first and the last of the model, with at least 50 eigenvalues.

    The first layer has the spectrum of the data as well as its own, and the last that of the classes.
    """
    findings = history.findings
    records: list[Any] = [] if findings is None else list(findings.layers)[1:-1]
    return [
        record.name
        for record in records
        if trigger.is_eligible(record) and getattr(record, "num_eigenvalues", 0) >= FEWEST_EIGENVALUES
    ]
