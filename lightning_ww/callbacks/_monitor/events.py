"""When which flag rose and fell, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning_ww.triggers.diagnosis import Diagnosis, TriggerName
    from lightning_ww.weights.report import WeightReport

MOST = 100
"""Lines that are kept, the latest."""

EARLIER = "There were earlier ones, which are not kept."


class Events:
    """A line for each flag that rose, with its number and threshold, and for each that fell."""

    def __init__(self, lines: Sequence[str] = ()) -> None:
        """``lines``: of the run that is resumed."""
        self.lines = list(lines)

    def note(
        self, when: str, report: WeightReport, diagnosis: Diagnosis, before: Mapping[TriggerName, Sequence[str]]
    ) -> list[str]:
        """Write down what changed since the last measurement.

        Args:
            when: Before each line.
            report: What was measured now.
            diagnosis: The flags now.
            before: The flagged layers then, by trigger.

        Returns:
            The layers of the flags that rose.
        """
        risen = [flag for flag in diagnosis.flags if flag.layer not in before.get(flag.trigger, ())]
        self.lines += [f"{when}: {flag}" for flag in risen]
        measured = {layer.name for layer in report.layers}
        for trigger, layers in before.items():
            for layer in layers:
                if layer not in diagnosis.layers(trigger):
                    fate = "is over" if layer in measured else "cannot be measured any more"
                    self.lines.append(f"{when}: `{trigger}` at layer `{layer}` {fate}.")
        if len(self.lines) > MOST:
            self.lines = [EARLIER, *self.lines[1 - MOST :]]
        return [flag.layer for flag in risen]
