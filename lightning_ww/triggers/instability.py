"""`Instability`: one direction of a layer takes over within a few measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from lightning_ww import _checks
from lightning_ww.history import History
from lightning_ww.triggers.thresholds import check_short_side
from lightning_ww.triggers.trigger import WHOLE, Trigger

BESIDE = (("curvature", "sharpness"), ("gradients", "norm"))
"""The groups and names of the numbers of which one must rise where they are measured."""


@dataclass(frozen=True)
class Instability(Trigger):
    """Flag a layer whose `stable_rank` fell by half, or whose `sv_max` doubled, within a few measurements.

    Where another monitor of the same Trainer has measured the sharpness or the gradient norm within them, one of the two must
    have risen, too. The first measurement is left out: from initial weights on, both change fast in health. It is raised
    only if it is named in ``triggers=`` or ``stop_on=``.

    Args:
        factor: The factor by which either has to change. Default: ``2``.
        within: The number of measurements. Default: ``3``.
        min_short_side: The smallest short side of layers that are judged. Default: ``16``.

    Raises:
        ArgumentError: If an argument is out of its domain. It is a `ValueError`.

    References:
        arXiv:2602.01734 (2026), on the stable rank before the loss of language models explodes.
    """

    factor: float = 2.0
    within: int = 3
    min_short_side: int = 16

    needs = ("stable_rank", "sv_max")
    meaning = "One direction takes over, as it often does before the loss diverges."
    lever = "Lower the learning rate, warm it up, or clip gradients."

    def __post_init__(self) -> None:
        _checks.number("Instability", "factor", self.factor, least=1.0)
        _checks.count("Instability", "within", self.within, least=1)
        check_short_side("Instability", self.min_short_side)

    @override
    def judge(self, history: History[Any], layer: str) -> str | None:
        rank, norm = history.value(layer, "stable_rank"), history.value(layer, "sv_max")
        earlier = [history[i] for i in range(-min(self.within + 1, len(history)), -1)]
        earlier = [past for past in earlier if not past.is_baseline]
        if rank is None or norm is None or not earlier or _is_alone(history, earlier[0].step):
            return None
        ranks = [value for past in earlier if (value := past.value(layer, "stable_rank")) is not None]
        norms = [value for past in earlier if (value := past.value(layer, "sv_max"))]
        times = "1 measurement" if len(earlier) == 1 else f"{len(earlier)} measurements"
        if ranks and rank * self.factor <= max(ranks):
            return f"stable_rank fell from {max(ranks):.3g} to {rank:.3g} within {times} {self._limit}"
        if norms and norm >= self.factor * min(norms):
            return f"sv_max rose from {min(norms):.3g} to {norm:.3g} within {times} {self._limit}"
        return None

    @property
    def _limit(self) -> str:
        return f"(threshold: a factor of {self.factor:g})"


def _is_alone(history: History[Any], since: int) -> bool:
    """Tell whether the sharpness or the gradient norm was measured since a step, and neither has risen."""
    rises = []
    for group, name in BESIDE:
        past = history.others.get(group, ())
        seen = [(one.step, value) for one in past if (value := one.value(WHOLE, name)) is not None]
        before, after = (
            [value for step, value in seen if step <= since],
            [value for step, value in seen if step > since],
        )
        rises += [after[-1] > before[-1]] if before and after else []
    return bool(rises) and not any(rises)
