"""`diagnose`: the flags of a measurement. It stops nothing.

A flag rises at its trigger's enter threshold and falls only below the leave threshold, so that small changes of a number
around a threshold do not make the flag flicker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError
from lightning_ww.history import Findings, History, Measurement, Moment
from lightning_ww.triggers.correlation_trap import CorrelationTrap
from lightning_ww.triggers.from_start import stands_from_start
from lightning_ww.triggers.nonfinite import Nonfinite
from lightning_ww.triggers.rank_collapse import RankCollapse
from lightning_ww.triggers.trigger import Trigger, check_triggers

DEFAULTS: tuple[Trigger, ...] = (Nonfinite(), RankCollapse(), CorrelationTrap())
"""The triggers of a `WeightSpectrumMonitor` unless others are given."""


@dataclass(frozen=True)
class Flag:
    """A layer, flagged by a trigger."""

    trigger: str
    layer: str  # "" for the model as a whole
    evidence: str  # the number and its threshold
    meaning: str = ""  # its possible meaning, a sentence
    lever: str = ""  # a possible remedy, a sentence

    def __str__(self) -> str:
        where = f" at layer `{self.layer}`" if self.layer else ""
        return " ".join(
            part for part in (f"`{self.trigger}`{where}: {self.evidence}.", self.meaning, self.lever) if part
        )


@dataclass(frozen=True)
class Verdict:
    """What one trigger says of a measurement."""

    flags: tuple[Flag, ...]
    from_start: tuple[Flag, ...]  # conditions that have held since the first measurement, which is no news
    fires: bool


@dataclass(frozen=True)
class Diagnosis:
    """The flags of one measurement."""

    flags: tuple[Flag, ...] = ()  # by trigger, then in model order
    fired: tuple[str, ...] = ()  # triggers with flags on enough layers
    from_start: tuple[
        Flag, ...
    ] = ()  # conditions that have held since the first measurement: no flags, and not counted

    @classmethod
    def of(cls, verdicts: Sequence[tuple[str, Verdict]]) -> Diagnosis:
        """Make a diagnosis of triggers' names and verdicts."""
        return cls(
            flags=tuple(flag for _, verdict in verdicts for flag in verdict.flags),
            fired=tuple(name for name, verdict in verdicts if verdict.fires),
            from_start=tuple(flag for _, verdict in verdicts for flag in verdict.from_start),
        )

    def layers(self, trigger: str) -> tuple[str, ...]:
        """The layers flagged for one trigger."""
        return tuple(flag.layer for flag in self.flags if flag.trigger == trigger)

    @property
    def by_trigger(self) -> Mapping[str, tuple[str, ...]]:
        """The flagged layers of each trigger that has any."""
        return {trigger: self.layers(trigger) for trigger in dict.fromkeys(flag.trigger for flag in self.flags)}

    @property
    def layers_from_start(self) -> Mapping[str, tuple[str, ...]]:
        """The layers for which each trigger's condition has held since the first measurement."""
        named: dict[str, tuple[str, ...]] = {}
        for flag in self.from_start:
            named[flag.trigger] = (*named.get(flag.trigger, ()), flag.layer)
        return named

    @property
    def flagged_layers(self) -> tuple[str, ...]:
        """The layers with any flag, each once."""
        return tuple(dict.fromkeys(flag.layer for flag in self.flags))


def diagnose(measured: Findings | History[Any], triggers: Sequence[Trigger] = DEFAULTS) -> Diagnosis:
    """Flag the layers of a report, or of the last measurement of a history.

    Args:
        measured: A `WeightReport`; or a history, such as ``monitor.history``, whose earlier flags decide where leave
            thresholds apply.
        triggers: The triggers to judge. Default: `Nonfinite`, `RankCollapse` and `CorrelationTrap` with their defaults.

    Returns:
        The flags, and the triggers that fire.

    Raises:
        ArgumentError: If ``measured`` is neither, or its last measurement was made before training was resumed; if a
            trigger is none, or returns something that is no evidence. It is a `ValueError`.

    Example:
        >>> import lightning_ww, torch
        >>> layer = torch.nn.Linear(32, 32)
        >>> _ = layer.weight.data[:, 8:].zero_()
        >>> lightning_ww.diagnose(lightning_ww.analyze(layer)).fired
        ('rank_collapse',)
    """
    check_triggers("diagnose", triggers)
    if isinstance(measured, History):
        if measured.findings is None:
            raise _checks.unfit_object(
                "diagnose", "measured", "a history with the findings of its last measurement", "none"
            )
    else:
        if not all(hasattr(measured, name) for name in ("summary", "layers", "skipped")):
            expected = "a `WeightReport` or a history"
            raise _checks.unfit_object("diagnose", "measured", expected, f"a `{type(measured).__name__}`")
        now = Measurement.of(Moment(0, 0, 0, 0, is_baseline=False), measured)
        measured = History[Measurement]().up_to(now, measured)
    return Diagnosis.of([(trigger.name, judge(trigger, measured)) for trigger in triggers])


def judge(trigger: Trigger, history: History[Any]) -> Verdict:
    """The flags of one trigger, and whether it fires.

    Raises:
        ArgumentError: If it returns something else than layers' names, evidence in words, and a decision.
    """
    candidates = list(trigger.candidates(history))
    if not all(isinstance(layer, str) for layer in candidates):
        raise ArgumentError(f"`{type(trigger).__name__}.candidates`: expected names of layers, but got {candidates!r}.")
    flags: list[Flag] = []
    from_start: list[Flag] = []
    for layer in candidates:
        evidence = trigger.judge(history, layer)
        if evidence is None:
            continue
        if not isinstance(evidence, str) or not evidence:
            expected = "the evidence for a flag in words, or `None`"
            raise ArgumentError(f"`{type(trigger).__name__}.judge`: expected {expected}, but got {evidence!r}.")
        flag = Flag(trigger.name, layer, evidence, trigger.meaning, trigger.lever)
        (from_start if stands_from_start(trigger, history, layer) else flags).append(flag)
    is_firing = bool(trigger.fires(history, [flag.layer for flag in flags], candidates))
    return Verdict(tuple(flags), tuple(from_start), is_firing)
