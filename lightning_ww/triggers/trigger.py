"""`Trigger`: the base class of triggers, which are conditions on layers, judged at each measurement."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError
from lightning_ww.history import History, Measurement

WHOLE = ""
"""The name in place of a layer's if a monitor measures the model as a whole."""


class Trigger(ABC):
    """A condition on a layer's history that raises a flag.

    Your own trigger is a frozen dataclass, with its thresholds as fields, and one method, `judge`. Give it to a monitor by
    ``triggers=``. Three other decisions have methods that you may leave as they are: which layers it judges, how many flags
    make it fire, and how severe a flag is. A condition that holds at a run's first measurement is reported as "from the
    start". It is a flag only once it has got clearly worse, by its `severity`, or has come back after it had gone.

    Attributes:
        name: Its name in tags, tables and ``stop_on=``. Default: the class's name in snake case.
        needs: The metrics of a layer, or numbers of a monitor's summary, that must be measured; the history keeps them even
            if they are not logged. Default: ``()``.
        meaning: The possible meaning of a flag, a sentence. Default: ``""``.
        lever: A possible remedy, a sentence. Default: ``""``.
        share: The share of the judged layers that must be flagged for it to fire. Default: ``0``: any flag is enough.
        min_short_side: The smallest short side of layers that are judged. Default: ``0``: all layers are.
        acts_at_once: Whether `SpectralEarlyStopping` stops at the first measurement at which it fires. Default: ``False``.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class SteepTail(Trigger):
        ...     enter: float = 8.0
        ...     needs = ("alpha",)
        ...
        ...     def judge(self, history, layer):
        ...         alpha = history.value(layer, "alpha")
        ...         return f"alpha {alpha:.1f}" if alpha is not None and alpha > self.enter else None
        >>> SteepTail().name
        'steep_tail'
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    meaning: ClassVar[str] = ""
    lever: ClassVar[str] = ""
    share: float = 0.0
    min_short_side: int = 0
    acts_at_once: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @abstractmethod
    def judge(self, history: History[Any], layer: str) -> str | None:
        """Return the evidence for a flag on a layer at the last measurement.

        It is called during training: it must not draw from global random streams.

        Args:
            history: The history up to the new measurement: ``history.value(layer, metric)`` is a number of the new
                measurement, ``history[-2]`` is the measurement before it, ``history.baseline`` the first measurement,
                ``history.was_flagged(trigger, layer)`` tells if the layer was flagged at the measurement before, and
                ``history.others["curvature"]`` is another monitor's history.
            layer: The layer's name; ``""`` if the monitor measures the model as a whole.

        Returns:
            The evidence in words, a number and its threshold, or ``None`` for no flag.
        """

    def severity(self, measurement: Measurement, layer: str) -> float | None:
        """How far a layer is beyond the trigger's thresholds: 0 at the one at which a flag falls, 1 where it rises.

        A condition that holds from the start of a run on is no flag until this has clearly grown. Default: ``None``, unknown:
        it becomes a flag only if it comes back after it had gone.
        """
        return None

    def is_eligible(self, record: Any) -> bool:
        """Tell whether a layer is judged: by default, whether it is trained, not an embedding, and large enough.

        One of the two factors of a low-rank product (LoRA's) is not, since only the product acts.
        """
        is_excluded = any(getattr(record, fact, False) for fact in ("is_embedding", "is_frozen", "is_factor"))
        return not is_excluded and getattr(record, "M", self.min_short_side) >= self.min_short_side

    def threshold(self, history: History[Any], layer: str, enter: float, leave: float) -> float:
        """The threshold that applies to a layer: ``leave`` if it was flagged at the measurement before, else ``enter``.

        With two thresholds, small changes of a number around one of them do not make the flag come and go.
        """
        return leave if history.was_flagged(self.name, layer) else enter

    def candidates(self, history: History[Any]) -> list[str]:
        """The layers that are judged at the last measurement: the eligible layers, or else the model as a whole."""
        findings = history.findings
        if findings is not None and (findings.layers or findings.skipped):
            return [record.name for record in findings.layers if self.is_eligible(record)]
        return [] if history[-1].metrics else [WHOLE]

    def fires(self, history: History[Any], flagged: Sequence[str], candidates: Sequence[str]) -> bool:
        """Tell whether the trigger fires: by default, if at least the `share` of the judged layers is flagged."""
        return bool(flagged) and len(flagged) >= self.share * len(candidates)


def check_triggers(call: str, triggers: Sequence[Trigger]) -> None:
    """Raise `ArgumentError` unless ``triggers``, an argument of ``call``, is a list of well-formed triggers."""
    if not isinstance(triggers, Sequence) or isinstance(triggers, str):
        raise _checks.unfit(call, "triggers", triggers, "a list of triggers, or `None` for the default ones")
    for trigger in triggers:
        if not isinstance(trigger, Trigger):
            raise _checks.unfit(call, "triggers", [trigger], "objects such as `RankCollapse()`, each a `Trigger`")
        kind = type(trigger).__name__
        for name in ("name", "meaning", "lever"):
            value = getattr(trigger, name)
            if not isinstance(value, str) or (name == "name" and not value):
                raise ArgumentError(f"`{kind}.{name} = {value!r}`: expected a string.")
        if not isinstance(trigger.needs, tuple | list) or not all(isinstance(need, str) for need in trigger.needs):
            raise ArgumentError(f"`{kind}.needs = {trigger.needs!r}`: expected a tuple of names, such as `('alpha',)`.")
