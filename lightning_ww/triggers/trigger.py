"""`Trigger`: a condition on a layer, judged at each measurement; what a new one says, and what all have in common."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from lightning_ww.history import History

WHOLE = ""
"""In place of a layer's name, where a monitor measures the model as a whole."""


class Trigger(ABC):
    """A condition on a layer's history that becomes a flag.

    A trigger of your own is a frozen dataclass, its thresholds as fields, with one method, `judge`; give it to a monitor
    with ``triggers=``. Which layers it judges, and how many flags make it fire, are the two other methods, which you may
    leave as they are.

    Attributes:
        name: What it is called in tags, tables and ``stop_on=``. Default: the class's name in snake case.
        needs: Metrics of a layer, or numbers of a monitor's summary, that have to be measured; they are kept in the
            history also when they are not logged. Default: ``()``.
        meaning: What a flag may mean, a sentence. Default: ``""``.
        lever: What may be done about it, a sentence. Default: ``""``.
        share: The share of the judged layers whose flags make it fire. Default: ``0``, any flag does.
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
    acts_at_once: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @abstractmethod
    def judge(self, history: History[Any], layer: str) -> str | None:
        """Say what speaks for a flag on a layer at the last measurement.

        Args:
            history: Up to the measurement at hand, which is the last: ``history.value(layer, metric)`` is a number of it,
                ``history[-2]`` the measurement before, ``history.baseline`` the first ever,
                ``history.was_flagged(trigger, layer)`` the last flag, ``history.others["curvature"]`` another monitor's.
            layer: The layer's name; ``""`` where the monitor measures the model as a whole.

        Returns:
            The evidence in words, a number and its threshold, or ``None`` for no flag.
        """

    def is_eligible(self, record: Any) -> bool:
        """Whether a layer is judged: by default, whether it is trained and no embedding."""
        return not getattr(record, "is_embedding", False) and not getattr(record, "is_frozen", False)

    def candidates(self, history: History[Any]) -> list[str]:
        """The layers that are judged at the last measurement: the eligible ones; else the model as a whole."""
        if history.findings is None or not history[-1].layers:
            return [] if history[-1].metrics else [WHOLE]
        return [record.name for record in history.findings.layers if self.is_eligible(record)]

    def fires(self, history: History[Any], flagged: Sequence[str], candidates: Sequence[str]) -> bool:
        """Whether these flags make it fire: by default, flags on at least the `share` of the judged layers."""
        return bool(flagged) and len(flagged) >= self.share * len(candidates)
