"""Tables in Markdown, and numbers in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Skipped(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def sentence(self) -> str: ...


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table with headings; bars in a cell are escaped, and its line breaks become spaces."""
    lines = [headings, ["---"] * len(headings), *rows]
    clean = [[" ".join(cell.replace("|", "\\|").split()) for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in clean)


def events_and_skips(events: Sequence[str], skipped: Sequence[_Skipped], heading: str) -> str:
    """Write what follows a table of layers: the events, given oldest first, and the layers left out, under a heading."""
    text = ""
    if events:
        text += "\n\nEvents, the latest first:\n\n" + "\n".join(f"- {event}" for event in reversed(events))
    if skipped:
        rows = [[f"`{skip.name}`", skip.reason, skip.sentence] for skip in skipped]
        text += f"\n\n{heading}:\n\n" + markdown(["layer", "reason", "why"], rows)
    return text


def number(value: float | None) -> str:
    """Write a number with three digits, or a dash for ``None``."""
    return "–" if value is None else f"{value:.3g}"
