"""`Stop`: a reason to stop, and where it is told."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lightning_ww.callbacks._monitor.event_file import NAME, EventFile, flag_event
from lightning_ww.callbacks._monitor.publisher import Publisher
from lightning_ww.callbacks._monitor.view import View
from lightning_ww.triggers.diagnosis import Flag

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.guard import Guard
    from lightning_ww.callbacks._monitor.lightning import Trainer
    from lightning_ww.history import Measurement
    from lightning_ww.triggers.trigger import Trigger


@dataclass(frozen=True)
class Stop:
    """A reason to stop."""

    message: str  # in a sentence
    trigger: Trigger
    measurement: Measurement  # the latest one
    evidence: str  # of the flags at it

    def tell(self, trainer: Trainer, guard: Guard, file: EventFile) -> None:
        """Tell the loggers, as a text ``flags/stop_reason`` and an alert, and the file of events."""
        if not trainer.is_global_zero:
            return
        trigger, measured = self.trigger, self.measurement
        layers = [layer for layer in measured.flags.get(trigger.name, ()) if layer]
        said = f"{self.message} {self.evidence}".strip()
        flag = Flag(trigger.name, ", ".join(layers), said, trigger.meaning, trigger.lever)
        event = {**flag_event("stop", measured, flag), "layers": layers}
        guard.run(trainer, partial(file.append, [event]), f"write `{NAME}`")
        publisher = Publisher(trainer, guard, "flags", "", measured.moment.logged_step)
        publisher.scalars({}, View(texts={"stop_reason": self.message}), {})
        publisher.alert(f"lightning-ww stops: {trigger.name}", self.message)
