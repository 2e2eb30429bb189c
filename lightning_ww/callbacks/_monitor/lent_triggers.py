"""The triggers that a callback lends to monitors for a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_ww._errors import ArgumentError
from lightning_ww.callbacks._monitor.lightning import callbacks
from lightning_ww.callbacks._monitor.triggers import are_equal

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import Trainer
    from lightning_ww.triggers.trigger import Trigger

MONITOR = ("triggers", "add_trigger", "drop_trigger", "history", "diagnosis", "state_key")
"""The attributes of a callback that raises triggers."""


class LentTriggers:
    """Triggers, and the monitors that have them from us."""

    def __init__(self) -> None:
        self._lent: list[tuple[Any, Trigger]] = []

    def lend(self, trainer: Trainer, trigger: Trigger, typed: object, call: str) -> None:
        """Give a trigger to the monitors with a default of equal name, else to the first monitor that can take it.

        Args:
            trainer: The Trainer.
            trigger: The trigger.
            typed: The user's own word for it, for the error.
            call: The class of the callback that lends it.

        Raises:
            ArgumentError: If there are monitors, and none can take it.
        """
        monitors = [monitor for monitor in callbacks(trainer) if is_monitor(monitor)]
        twins = [monitor for monitor in monitors if trigger.name in {own.name for own in monitor.triggers}]
        has_it = any(are_equal(trigger, own) for monitor in monitors for own in monitor.triggers)
        errors = []
        for monitor in twins or monitors:
            before = monitor.triggers
            try:
                monitor.add_trigger(trigger)
            except ArgumentError as error:
                errors.append(error)
                continue
            has_it = True
            if monitor.triggers is not before:
                self._lent.append((monitor, trigger))
            if not twins:
                return
        if errors and not has_it:
            why = " ".join(str(error) for error in errors)
            raise ArgumentError(
                f"`{call}(stop_on=[{typed!r}])`: no monitor of this Trainer can raise it. "
                f"`WeightSpectrumMonitor` measures layers, `CurvatureMonitor` the loss. {why}"
            )

    def take_back(self) -> None:
        """Take all triggers back: monitors have their own again."""
        for monitor, trigger in self._lent:
            monitor.drop_trigger(trigger)
        self._lent = []


def is_monitor(callback: Any) -> bool:
    """Tell whether a callback can raise triggers, judged by its attributes rather than by its class."""
    return all(hasattr(callback, name) for name in MONITOR)


def monitors_with_triggers(trainer: Trainer) -> list[Any]:
    """The callbacks that raise triggers."""
    return [callback for callback in callbacks(trainer) if is_monitor(callback) and callback.triggers]
