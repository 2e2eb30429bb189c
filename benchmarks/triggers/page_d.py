"""The part of the page on fine-tuning."""

from __future__ import annotations

from typing import Any

from scoring import rate
from tabulate import tabulate

Run = dict[str, Any]


def suite_d(runs: list[Run]) -> str:
    """What was flagged, said and stopped."""
    lora = [run for run in runs if run["network"].startswith("LoRA")]
    rows = [row_of(f"LoRA, {len(lora)} runs", lora)] if lora else []
    rows += [row_of(run["network"], [run]) for run in runs if run not in lora]
    return "\n\n".join(
        [
            "## D. Fine-tuning",
            "LoRA in nine settings (ranks 8, 32, 64; rates 3e-4, 1e-3, 3e-3) with three seeds, and networks from wheels of PyPI, each "
            "weight a layer that learns, on noise, what it did before plus a change of rank one and 2 % of its norm (AdamW 1e-4, 300 "
            "steps). From the start: the layers for which a trigger's condition holds at the first measurement, which is reported, and "
            "no flag.",
            tabulate(
                rows,
                ("network", "layers", "from the start", "flags later", "warnings at the start", "stopped"),
                "github",
            ),
        ]
    )


def row_of(name: str, runs: list[Run]) -> tuple[object, ...]:
    """A row for one network, or for several runs."""
    starts: dict[str, int] = {}
    for run in runs:
        for trigger, number in run["from start"].items():
            starts[trigger] = max(starts.get(trigger, 0), number)
    said = sum(len([one for one in run["warnings"] if "step 0:" in one]) for run in runs)
    later = sum(len([one for one in run["warnings"] if "step 0:" not in one]) for run in runs)
    held = ", ".join(f"`{trigger}`: {number}" for trigger, number in starts.items()) or "–"
    stopped = sum(run["stopped"] is not None for run in runs)
    return (
        name,
        max(run["layers"] for run in runs),
        held,
        later,
        said,
        rate(stopped, len(runs)) if len(runs) > 1 else "yes" if stopped else "no",
    )
