"""Write `docs/triggers.md` and its pictures from the results of the suites."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from page_a import suite_a, verdict
from page_b import suite_b
from page_c import suite_c
from page_d import suite_d
from runs_of_a import Run

DOCS = Path(__file__).parents[2] / "docs"

HEAD = """# What each trigger is worth

Four suites of runs, on two cores. Thresholds, faults, splits and seeds stand in `benchmarks/triggers/declared.py`, which was
written first; triggers have their defaults. Intervals are 95 % (Wilson's for rates, the bootstrap over runs for areas). No time
is divided by a run's own length.

- `make bench-triggers` runs what is missing of suites A, B and D, and writes this page ({minutes:.0f} minutes of two cores when it was
  written, beside other work).
- `make bench-anti-grokking` does the same for suite C, for hours; after a break it goes on where it was.

{verdict}

## What to switch on

- **Always: `nonfinite`.** No healthy run was stopped (0 of 80, at most 5 %), and weights that are lost do not come back.
- **To stop, where you regularize or prune and want no layer to collapse: `rank_collapse`.** No healthy run was stopped; it sees each
  strangled layer within a few measurements. It is no judge of accuracy: most runs that it stops would not have lost any, and where accuracy
  falls it falls sooner. It does not see a layer whose weights only become small.
- **To stop, with a `GradientMonitor`: `vanishing_gradients`.** No healthy run was stopped; it stops networks that never learn before
  that is clear from their accuracy, and networks whose units have died after a learning rate that was too large, late. It is the only
  trigger that is both silent in health and in time for a kind of failure.
- **As a warning: `correlation_trap`, `exploding_gradients`.** They tell of steps that are too large, mostly after the loss has told. To stop on them, ask
  for `require_metric="val_loss"` as well.
- **Not to stop: `over_trained`, `instability`, `plateau`, `sharpness`.** The first stops healthy networks, the second is late, the
  third saves next to nothing, the fourth is for plain gradient descent on whole batches.
- **Not for overfitting: any of them.** With wrong labels, validation loss, Label Wave and gradient disparity stop at the right
  time (suite B); our triggers do not.
"""


def read(file: Path) -> list[Run]:
    """The lines of a file of results."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/triggers"), help="where results are")
    parser.add_argument("--page", type=Path, default=DOCS / "triggers.md", help="the page to write")
    arguments = parser.parse_args()
    a, b, d = (read(arguments.folder / f"{name}.jsonl") for name in ("will_it_fail", "when_to_stop", "fine_tuning"))
    c = [line for file in sorted((arguments.folder / "anti_grokking").glob("*.jsonl")) for line in read(file)]
    minutes = sum(run.get("seconds", 0.0) for run in (*a, *b)) / 120
    old = sections(arguments.page)
    new = {"": HEAD.format(minutes=minutes, verdict=verdict(a))} if a and b else {}
    new |= {
        name: suite(runs)
        for name, suite, runs in (("A", suite_a, a), ("B", suite_b, b), ("C", suite_c, c), ("D", suite_d, d))
        if runs
    }
    parts = [new.get(name, old.get(name, "")).strip() for name in ("", "A", "B", "C", "D")]
    arguments.page.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def sections(page: Path) -> dict[str, str]:
    """The parts of the page as it is, by the letter of their suite: those without results at hand stay."""
    parts = re.split(r"^(?=## [A-D]\. )", page.read_text(encoding="utf-8"), flags=re.M) if page.exists() else [""]
    return {part[3] if part.startswith("## ") and i else "": part for i, part in enumerate(parts)}


if __name__ == "__main__":
    main()
