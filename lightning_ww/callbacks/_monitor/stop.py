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
    from lightning_ww.history import Measurement, Moment
    from lightning_ww.triggers.trigger import Trigger


@dataclass(frozen=True)
class Stop:
    """A reason to stop, in plain values, so that another process can be told."""

    message: str  # in a sentence
    flag: Flag  # of the trigger, with the evidence of all its layers
    layers: tuple[str, ...]
    moment: Moment  # of the latest measurement

    @classmethod
    def of(cls, message: str, trigger: Trigger, measurement: Measurement, evidence: str) -> Stop:
        """Make it of a trigger's flags at the latest measurement."""
        layers = tuple(layer for layer in measurement.flags.get(trigger.name, ()) if layer)
        said = f"{message} {evidence}".strip()
        flag = Flag(trigger.name, ", ".join(layers), said, trigger.meaning, trigger.lever)
        return cls(message, flag, layers, measurement.moment)

    def tell(self, trainer: Trainer, guard: Guard, file: EventFile) -> None:
        """Tell the loggers, as a text ``flags/stop_reason`` and an alert, and the file of events."""
        if not trainer.is_global_zero:
            return
        event = {**flag_event("stop", self.moment, self.flag), "layers": list(self.layers)}
        guard.run(trainer, partial(file.append, [event]), f"write `{NAME}`")
        publisher = Publisher(trainer, guard, "flags", "", self.moment.logged_step)
        publisher.scalars({}, View(texts={"stop_reason": self.message}), {})
        publisher.alert(f"lightning-ww stops: {self.flag.trigger}", self.message)
