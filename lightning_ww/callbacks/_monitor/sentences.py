"""Sentences in warnings: about several layers at once, and about time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning_ww.history import Skipped
    from lightning_ww.triggers.diagnosis import Flag

SHORT = 1.0
"""The time in seconds up to which a first measurement is not called slow, since there is only one."""

MOST_NAMED = 5
"""The most layers that a warning names."""


def about_flags(step: int, flags: list[Flag]) -> str:
    """One message on flags of one trigger; before the first step without what training may have done wrong."""
    first, *others = flags
    said = first if step else replace(first, meaning="It is so from the start.", lever="")
    return f"at step {step}: {said}" + _named(" So it is at", [flag.layer for flag in others])


def about_skips(skips: list[Skipped]) -> str:
    """One message on layers that are skipped for one reason."""
    first, *others = skips
    return f"skips layer `{first.name}`: {first.sentence}." + _named(" So it does", [skip.name for skip in others])


def about_time(seconds: float, trained: float, rarer: str | None, faster: list[str]) -> str:
    """A measurement that took longer than its epoch, with what helps: a schedule to raise, or things that are faster."""
    what = "its first measurement" if rarer is None else "a measurement"
    said = f"took {readable(seconds)} for {what}, longer than the rest of its epoch ({readable(trained)})."
    often = "" if rarer is None else f"To measure less often, raise {rarer}; to"
    return f"{said} {often or 'To'} measure faster, {' or '.join(faster)}."


def about_share(all_of_us: float, own: float, drawn: float, lever: str) -> str:
    """A large share of a run, with what each lever would give.

    Args:
        all_of_us: The share of all monitors.
        own: The share of the monitor that this is about, the largest one.
        drawn: The part of that for pictures.
        lever: The argument that makes measurements rarer, with its value.
    """
    rest, rarer = 1 - own, 4
    levers = [
        f"`max_overhead=0.05` keeps all monitors within {_percent(0.05)}, by measuring less often",
        f"{lever} times {rarer} would take about {_percent(own / rarer / (rest + own / rarer))}",
    ]
    if drawn > own / 10:
        levers.append(f"`panels=False`, without pictures, about {_percent((own - drawn) / (1 - drawn))}")
    others = "" if own > 0.99 * all_of_us else f" (all monitors together: {_percent(all_of_us)})"
    return f"took {_percent(own)} of the run so far{others}. {'; '.join(levers)}."


def about_left_out(most: float, seconds: float, step: int) -> str:
    """The first measurement that `max_overhead` leaves out."""
    return (
        f"leaves out the measurement at step {step}, since `max_overhead={most:g}` leaves no time for it "
        f"({readable(seconds)}), and from now on measures when there is. `num_left_out` counts what is left out."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def schedule_lever(every_n_epochs: int | None, every_n_train_steps: int | None) -> str:
    """The argument that makes measurements rarer, with its value."""
    if every_n_train_steps is None:
        return f"`every_n_epochs` ({every_n_epochs})"
    return f"`every_n_train_steps` ({every_n_train_steps})"


def readable(seconds: float) -> str:
    """A time in a unit that suits it: ``35 ms``, ``1.2 s``, ``41 s``, ``3 min 20 s``."""
    if seconds < 0.995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def listed(names: Sequence[str], most: int) -> str:
    """The first names, and the number of the others."""
    first = ", ".join(f"`{name}`" for name in names[:most])
    return first + (f" and {len(names) - most} more" if len(names) > most else "")


def _named(beginning: str, names: list[str]) -> str:
    return f"{beginning} {listed(names, MOST_NAMED)}." if names else ""
