"""Conditions on a report become flags on layers, with hysteresis. It knows no Trainer, and stops nothing.

Every threshold is an argument. A flag rises at its enter threshold and falls only below its leave threshold, so that a
number that trembles about one of them does not make a flag flicker.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from lightning_ww.weights.report import LayerReport, WeightReport

TriggerName = Literal["nonfinite", "rank_collapse", "correlation_trap"]

TRIGGERS: tuple[TriggerName, ...] = ("nonfinite", "rank_collapse", "correlation_trap")
"""What a layer can be flagged for."""


@dataclass(frozen=True)
class FlagThresholds:
    """When a flag rises and falls, on which layers, and how many of them make the trigger fire.

    The defaults are those at which healthy SGD and Adam runs on scikit-learn's digits stay silent.

    Args:
        rank_deficit_enter: `rank_collapse` rises where this share of singular values, or more, has collapsed.
            Default: 0.5.
        rank_deficit_leave: It falls below this share. Default: 0.4.
        rank_deficit_alone: One layer with this share, or more, makes `rank_collapse` fire. Default: 0.9.
        rank_collapse_share: So does this share of the eligible layers. Default: 0.25.
        trap_z_enter: `correlation_trap` rises above this score … Default: 3.27, Tracy–Widom's 99.9 % point.
        trap_element_enter: … in layers with an element this large, or larger, in units of the size at which it shows.
            Default: 1. It tells large elements from a mean that is not zero, which healthy Adam runs have.
        trap_z_leave: It falls below this score, … Default: 2, the 99 % point.
        trap_element_leave: … or below this size. Default: 0.8.
        correlation_trap_share: This share of the eligible layers makes `correlation_trap` fire. Default: 0.5.
        min_short_side: Layers with a shorter short side are never flagged for rank or traps. Default: 16.
    """

    rank_deficit_enter: float = 0.5
    rank_deficit_leave: float = 0.4
    rank_deficit_alone: float = 0.9
    rank_collapse_share: float = 0.25
    trap_z_enter: float = 3.27
    trap_element_enter: float = 1.0
    trap_z_leave: float = 2.0
    trap_element_leave: float = 0.8
    correlation_trap_share: float = 0.5
    min_short_side: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
                raise ValueError(f"`FlagThresholds({field.name}={value!r})`: expected a number that is not negative.")
        for name in ("rank_deficit", "trap_z", "trap_element"):
            enter, leave = getattr(self, f"{name}_enter"), getattr(self, f"{name}_leave")
            if leave > enter:
                raise ValueError(
                    f"`FlagThresholds({name}_leave={leave!r})`: expected at most `{name}_enter`, which is {enter!r}."
                )


@dataclass(frozen=True)
class Flag:
    """One layer, flagged."""

    trigger: TriggerName
    layer: str
    evidence: str  # the number and the threshold
    meaning: str  # what it may mean, and what to do

    def __str__(self) -> str:
        return f"`{self.trigger}` at layer `{self.layer}`: {self.evidence}. {self.meaning}"


@dataclass(frozen=True)
class Diagnosis:
    """The flags of one measurement."""

    flags: tuple[Flag, ...] = ()
    fired: tuple[TriggerName, ...] = ()  # triggers with flags on enough layers

    def layers(self, trigger: TriggerName) -> tuple[str, ...]:
        """The layers flagged for one trigger."""
        return tuple(flag.layer for flag in self.flags if flag.trigger == trigger)

    @property
    def by_trigger(self) -> Mapping[TriggerName, tuple[str, ...]]:
        """The flagged layers of every trigger."""
        return {trigger: self.layers(trigger) for trigger in TRIGGERS}

    @property
    def flagged_layers(self) -> tuple[str, ...]:
        """The layers with any flag, each once."""
        return tuple(dict.fromkeys(flag.layer for flag in self.flags))


def diagnose(
    report: WeightReport,
    previous: Mapping[TriggerName, Collection[str]] | None = None,
    thresholds: FlagThresholds | None = None,
) -> Diagnosis:
    """Flag the layers of a report.

    Args:
        report: A measurement.
        previous: The layers that were flagged before, by trigger, from which hysteresis starts. Default: none.
        thresholds: Default: `FlagThresholds()`.

    Returns:
        The flags, by trigger and in model order, and the triggers that fire: `nonfinite` with any layer,
        `rank_collapse` with a quarter of the eligible layers or one that is all but gone, `correlation_trap` with
        half of them.
    """
    limits = thresholds or FlagThresholds()
    before = previous or {}
    lost = [
        Flag(
            "nonfinite", skip.name, skip.sentence, "Training has diverged: lower the learning rate, or clip gradients."
        )
        for skip in report.skipped
        if skip.reason == "nonfinite"
    ]
    eligible = [layer for layer in report.layers if is_eligible(layer, limits)]
    collapsed = _flagged(eligible, before.get("rank_collapse", ()), lambda x, was: _rank_collapse(x, limits, was))
    trapped = _flagged(eligible, before.get("correlation_trap", ()), lambda x, was: _correlation_trap(x, limits, was))
    flagged = {flag.layer for flag in collapsed}
    gone = any((x.rank_deficit or 0) >= limits.rank_deficit_alone for x in eligible if x.name in flagged)
    fired: dict[TriggerName, bool] = {
        "nonfinite": bool(lost),
        "rank_collapse": bool(collapsed) and (gone or len(collapsed) >= limits.rank_collapse_share * len(eligible)),
        "correlation_trap": bool(trapped) and len(trapped) >= limits.correlation_trap_share * len(eligible),
    }
    return Diagnosis((*lost, *collapsed, *trapped), tuple(trigger for trigger in TRIGGERS if fired[trigger]))


def is_eligible(layer: LayerReport, thresholds: FlagThresholds) -> bool:
    """Whether a layer may be flagged for its rank or for traps: trained, not an embedding, not too small."""
    return not layer.is_embedding and not layer.is_frozen and thresholds.min_short_side <= layer.M


def _flagged(
    layers: list[LayerReport], before: Collection[str], judge: Callable[[LayerReport, bool], Flag | None]
) -> list[Flag]:
    return [flag for layer in layers if (flag := judge(layer, layer.name in before)) is not None]


def _rank_collapse(layer: LayerReport, limits: FlagThresholds, was_flagged: bool) -> Flag | None:
    deficit = layer.rank_deficit
    if deficit is None or deficit < (limits.rank_deficit_leave if was_flagged else limits.rank_deficit_enter):
        return None
    held = f", held down to {limits.rank_deficit_leave:g}" if was_flagged else ""
    return Flag(
        "rank_collapse",
        layer.name,
        f"rank_deficit {deficit:.2f} (threshold {limits.rank_deficit_enter:g}{held}): that share of its singular "
        "values is at most a tenth of what the same elements in random order have",
        "Often over-regularisation (weight decay, L2): lower it if validation suffers; often harmless.",
    )


def _correlation_trap(layer: LayerReport, limits: FlagThresholds, was_flagged: bool) -> Flag | None:
    if layer.trap_z is None or layer.trap_element is None:
        return None
    if was_flagged:
        if layer.trap_z < limits.trap_z_leave or layer.trap_element < limits.trap_element_leave:
            return None
    elif layer.trap_z <= limits.trap_z_enter or layer.trap_element < limits.trap_element_enter:
        return None
    held = f", held down to {limits.trap_z_leave:g} and {limits.trap_element_leave:g}" if was_flagged else ""
    return Flag(
        "correlation_trap",
        layer.name,
        f"trap_z {layer.trap_z:.1f} (threshold {limits.trap_z_enter:g}), largest element {layer.trap_element:.2f} "
        f"of the visible size (threshold {limits.trap_element_enter:g}{held}), "
        f"mean shift {layer.trap_mean_shift or 0:.2f}",
        "A few elements dominate it: often too large a learning rate, or an outlier in the data.",
    )
