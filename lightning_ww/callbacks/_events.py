"""When which flag rose and fell, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning_ww.diagnosis import Diagnosis, TriggerName

MOST = 100
"""Lines that are kept, the latest."""


class Events:
    """A line for each flag that rose, with its number and threshold, and for each that fell."""

    def __init__(self, lines: Sequence[str] = ()) -> None:
        """``lines``: of the run that is resumed."""
        self.lines = list(lines)

    def note(self, when: str, diagnosis: Diagnosis, before: Mapping[TriggerName, Sequence[str]]) -> list[str]:
        """Write down what changed since the last measurement.

        Args:
            when: Before each line.
            diagnosis: The flags now.
            before: The flagged layers then, by trigger.

        Returns:
            The layers of the flags that rose.
        """
        risen = [flag for flag in diagnosis.flags if flag.layer not in before.get(flag.trigger, ())]
        self.lines += [f"{when}: {flag}" for flag in risen]
        self.lines += [
            f"{when}: `{trigger}` at layer `{layer}` is over."
            for trigger, layers in before.items()
            for layer in layers
            if layer not in diagnosis.layers(trigger)
        ]
        self.lines = self.lines[-MOST:]
        return [flag.layer for flag in risen]
