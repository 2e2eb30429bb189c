"""The events of a run, in words: when flags rose and fell."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lightning_ww.triggers.diagnosis import Diagnosis, Flag

MOST = 100
"""The most lines that are kept; the oldest are dropped."""

EARLIER = "There were earlier ones, which are not kept."


class Events:
    """A line for each flag that rose, with its number and threshold, and for each that fell."""

    def __init__(self, lines: Sequence[str] = ()) -> None:
        """Start with the ``lines`` of the run that is resumed."""
        self.lines = list(lines)

    def note(
        self,
        when: str,
        diagnosis: Diagnosis,
        before: Mapping[str, Sequence[str]],
        measured: Collection[str],
        judged: Collection[str],
        *,
        is_first: bool = False,
    ) -> tuple[Flag, ...]:
        """Add lines on the flags that changed since the last measurement.

        Args:
            when: The beginning of each line.
            diagnosis: The current flags.
            before: The layers flagged at the last measurement, by trigger.
            measured: The layers of the current measurement.
            judged: The triggers that were judged at it.
            is_first: Whether it is the first measurement of the run. Default: ``False``.

        Returns:
            The flags that rose.
        """
        risen = tuple(flag for flag in diagnosis.flags if flag.layer not in before.get(flag.trigger, ()))
        if is_first:
            self.lines += [f"{when}, from the start, and so not counted: {flag}" for flag in diagnosis.from_start]
        self.lines += [f"{when}: {flag}" for flag in risen]
        for trigger, layers in before.items():
            for layer in layers:
                if layer not in diagnosis.layers(trigger):
                    fate = "is over" if layer in measured or not layer else "cannot be measured any more"
                    fate = fate if trigger in judged else "is not judged any more"
                    where = f" at layer `{layer}`" if layer else ""
                    self.lines.append(f"{when}: `{trigger}`{where} {fate}.")
        if len(self.lines) > MOST:
            self.lines = [EARLIER, *self.lines[1 - MOST :]]
        return risen
