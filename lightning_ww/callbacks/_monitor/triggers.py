"""The triggers of a monitor: their checks, the other monitors that they see, their flags, and the scalars of flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError
from lightning_ww.callbacks._monitor.lightning import Trainer, callbacks
from lightning_ww.history import History
from lightning_ww.triggers.diagnosis import Diagnosis, Verdict, judge
from lightning_ww.triggers.trigger import Trigger, check_triggers


class WithTriggers:
    """A callback that raises triggers.

    Attributes:
        triggers: The triggers that it judges at each measurement.
        metrics: The metrics that it logs for each layer.
    """

    triggers: tuple[Trigger, ...] = ()
    metrics: tuple[str, ...] = ()

    def _set_triggers(
        self, triggers: Sequence[Trigger] | None, defaults: Sequence[Trigger], measured: Sequence[str]
    ) -> None:
        """Use the user's triggers, or else the ``defaults`` for which enough is ``measured``."""
        self._measured = tuple(measured)
        self._given_triggers = triggers is not None
        self._added: dict[str, Trigger | None] = {}  # the default that an added trigger has replaced, by name
        usual = [trigger for trigger in defaults if set(trigger.needs) <= set(measured)]
        self.triggers = checked_triggers(type(self).__name__, usual if triggers is None else triggers, self._measured)

    def add_trigger(self, trigger: Trigger) -> None:
        """Raise another trigger, too; it replaces a default trigger of equal name.

        Raises:
            ArgumentError: If a different trigger of equal name was given or added, or a metric that it needs is not
                measured. It is a `ValueError`.
        """
        before, call = self.triggers, type(self).__name__
        is_fixed = self._given_triggers or getattr(trigger, "name", None) in self._added
        self.triggers = with_trigger(call, before, trigger, self._measured, is_fixed=is_fixed)
        if self.triggers is not before:
            self._added[trigger.name] = _named(trigger.name, before)

    def drop_trigger(self, trigger: Trigger) -> None:
        """Take back what `add_trigger` did: the default trigger that it replaced is raised again."""
        if trigger.name in self._added:
            self.triggers = without_trigger(self.triggers, trigger.name, self._added.pop(trigger.name))

    @property
    def _kept_metrics(self) -> tuple[str, ...]:
        """The metrics of each layer that the history keeps: those that are logged, and those that triggers need."""
        needed = [name for trigger in self.triggers for name in trigger.needs]
        return tuple(dict.fromkeys([*self.metrics, *needed]))


def checked_triggers(call: str, triggers: Sequence[Trigger], measured: Sequence[str]) -> tuple[Trigger, ...]:
    """The triggers as a tuple, if each is a `Trigger`, their names differ, and what they need is measured.

    Args:
        call: The class that has the argument ``triggers``.
        triggers: The argument.
        measured: The names of the metrics and summary numbers that the monitor measures.

    Raises:
        ArgumentError: If they do not fit.
    """
    check_triggers(call, triggers)
    for trigger in triggers:
        if missing := [name for name in trigger.needs if name not in measured]:
            raise ArgumentError(
                f"`{call}(triggers=[{trigger!r}])` needs {missing[0]!r}, which is not measured. "
                f"Measured are: {', '.join(measured)}."
            )
    names = [trigger.name for trigger in triggers]
    if twice := [name for name in names if names.count(name) > 1]:
        raise _checks.unfit(
            call, "triggers", list(triggers), f"one trigger of each name, but {twice[0]!r} is there twice"
        )
    return tuple(triggers)


def are_equal(first: Trigger | None, second: Trigger | None) -> bool:
    """Tell whether two triggers are equal; those that cannot be compared, such as those with arrays, only if they are one."""
    try:
        return bool(first == second)
    except Exception:
        return first is second


def with_trigger(
    call: str, triggers: tuple[Trigger, ...], added: Trigger, measured: Sequence[str], *, is_fixed: bool
) -> tuple[Trigger, ...]:
    """A monitor's triggers with another trigger, which replaces one of equal name unless that one is fixed.

    Raises:
        ArgumentError: If a different trigger of equal name is fixed, or a metric that it needs is not measured.
    """
    check_triggers(call, [added])
    twin = _named(added.name, triggers)
    if are_equal(twin, added):
        return triggers
    if twin is not None and is_fixed:
        raise ArgumentError(f"`{call}(triggers=...)` has {twin!r} already, and cannot raise {added!r}, too.")
    others = [added if trigger is twin else trigger for trigger in triggers]
    return checked_triggers(call, others if twin is not None else [*others, added], measured)


def _named(name: str, triggers: Sequence[Trigger]) -> Trigger | None:
    return next((trigger for trigger in triggers if trigger.name == name), None)


def without_trigger(triggers: tuple[Trigger, ...], name: str, twin: Trigger | None) -> tuple[Trigger, ...]:
    """A monitor's triggers with ``twin``, if any, in place of the one of this name."""
    put = [twin if trigger.name == name else trigger for trigger in triggers]
    return tuple(trigger for trigger in put if trigger is not None)


def others_of(monitor: Any, trainer: Trainer) -> Mapping[str, History[Any]]:
    """The histories of a Trainer's other monitors, by group; those of a different prefix by prefix and group."""
    others = [
        cb
        for cb in callbacks(trainer)
        if cb is not monitor and hasattr(cb, "GROUP") and isinstance(getattr(cb, "history", None), History)
    ]
    is_near = [cb.log_key_prefix == monitor.log_key_prefix and cb.GROUP != monitor.GROUP for cb in others]
    return {
        cb.GROUP if near else cb.log_key_prefix + cb.GROUP: cb.history for cb, near in zip(others, is_near, strict=True)
    }


def judged(
    triggers: Sequence[Trigger],
    history: History[Any],
    guarded: Callable[[Callable[[], Verdict], str], Verdict | None],
) -> tuple[Diagnosis, tuple[str, ...]]:
    """The flags at the last measurement of a history, and the names of triggers that failed, which raise none.

    Args:
        triggers: The triggers to judge.
        history: The history up to the new measurement.
        guarded: A function that runs an action, and warns if that fails.
    """
    names = [trigger.name for trigger in triggers]
    tried = [guarded(partial(judge, trigger, history), f"judge `{trigger.name}`") for trigger in triggers]
    pairs = list(zip(names, tried, strict=True))
    verdicts = [(name, verdict) for name, verdict in pairs if verdict is not None]
    return Diagnosis.of(verdicts), tuple(name for name, verdict in pairs if verdict is None)


def flag_scalars(triggers: Sequence[Trigger], diagnosis: Diagnosis, layers: Sequence[str]) -> dict[str, float]:
    """The scalars ``flags/<trigger>``, a number of layers, and ``flags.<trigger>/<layer>``, 0 or 1 for these layers."""
    scalars: dict[str, float] = {}
    for trigger in triggers:
        flagged = diagnosis.layers(trigger.name)
        scalars[f"flags/{trigger.name}"] = float(len(flagged))
        scalars |= {f"flags.{trigger.name}/{layer}": float(layer in flagged) for layer in layers}
    return scalars
