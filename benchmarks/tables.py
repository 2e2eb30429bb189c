"""The tables that the benchmarks write."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

Row = tuple[str, str, str, str]
"""What, how much of it, the target, and whether that holds: "yes", "NO", or a dash."""


def write(script: str, heading: str, rows: Sequence[Row], headers: tuple[str, str] = ("what", "measured")) -> str:
    """Write the table beside the script, in Markdown, and return it."""
    table = tabulate(rows, headers=(*headers, "target", "holds"), tablefmt="github")
    Path(script).with_suffix(".md").write_text(f"# {heading}\n\n{table}\n")
    return table


def conclude(table: str, rows: Sequence[Row]) -> None:
    """Print the table, and exit with an error if a target is missed."""
    print(table)
    if any(row[-1] == "NO" for row in rows):
        sys.exit("A target is missed.")
