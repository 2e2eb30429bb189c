"""Sentences about several layers at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_ww.history import Skipped
    from lightning_ww.triggers.diagnosis import Flag

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


def _named(beginning: str, names: list[str]) -> str:
    if not names:
        return ""
    listed = ", ".join(f"`{name}`" for name in names[:MOST_NAMED])
    return f"{beginning} {listed}" + (f" and {len(names) - MOST_NAMED} more." if len(names) > MOST_NAMED else ".")
