"""Tables in Markdown, and numbers in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table with headings; bars in a cell are escaped, and its line breaks become spaces."""
    lines = [headings, ["---"] * len(headings), *rows]
    clean = [[" ".join(cell.replace("|", "\\|").split()) for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in clean)


def number(value: float | None) -> str:
    """Write a number with three digits, or a dash for ``None``."""
    return "–" if value is None else f"{value:.3g}"
