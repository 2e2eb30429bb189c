"""What is there from the start is not news: a pretrained network's large elements, a factor that grows out of zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_ww.history import History
    from lightning_ww.triggers.trigger import Trigger

WORSE, WORSE_SHARE = 0.5, 0.25
"""How much the severity has to rise above that at the start: by this much, and by this share of it."""

STANDSTILL = 0.01
"""A fall of a number by less than this is a standstill."""


def stands_from_start(trigger: Trigger, history: History[Any], layer: str) -> bool:
    """Tell whether a condition that holds for a layer has held since the run's first measurement, and got no worse.

    It has got worse if its severity u is at least ``u₀ + max(0.5, 0.25·|u₀|)`` at two measurements in a row, where u₀ is that
    at the start. If it did not hold at some measurement, it has come back, and does not stand from the start.

    Args:
        trigger: The trigger.
        history: The history, whose last measurement is being judged.
        layer: The layer.
    """
    now, baseline = history[-1], history.baseline
    if trigger.acts_at_once:
        return False
    if baseline is None or baseline is now:
        return bool(now.is_baseline)
    earlier = [past for past in history if past.step < now.step and (not past.layers or layer in past.layers)]
    last = earlier[-1] if earlier else baseline
    if layer not in last.from_start.get(trigger.name, ()):
        return False
    first, before, here = (trigger.severity(past, layer) for past in (baseline, last, now))
    if first is None or before is None or here is None:
        return True
    return min(before, here) < first + max(WORSE, WORSE_SHARE * abs(first))


def grows_from_zero(history: History[Any], layer: str, metric: str) -> bool:
    """Tell whether a number that was 1 at the start has only fallen since, as that of a factor that was all zero does.

    Args:
        history: The history, whose last measurement is being judged.
        layer: The layer.
        metric: A share of singular values that are lost.
    """
    baseline = history.baseline
    if baseline is None or not baseline.is_baseline or baseline.value(layer, metric) != 1.0:
        return False
    known = [number for past in history if (number := past.value(layer, metric)) is not None]
    moved = [number for number in known if number < 1.0]
    if known[-1:] != (moved or [1.0])[-1:]:  # all zero again
        return False
    return all(before - after >= STANDSTILL for before, after in zip([1.0, *moved], moved, strict=False))
