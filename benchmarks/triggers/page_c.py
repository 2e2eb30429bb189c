"""The part of the page on suite C."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from page_b import validation_stop
from pictures import plot, save
from tabulate import tabulate

Run = dict[str, Any]

RULES_C: dict[str, Callable[[Run], bool]] = {
    "any trap at all (`correlation_traps` > 0)": lambda now: any(x or 0 for x in now["layers"]["correlation_traps"]),
    "`trap_z_centred` > 3.27 in any layer": lambda now: any(
        (x or 0) > 3.27 for x in now["layers"]["trap_z_centred"][:2]
    ),
    "`correlation_trap`": lambda now: "correlation_trap" in now["fired"],
    "`over_trained`": lambda now: "over_trained" in now["fired"],
    "alpha < 2 in any layer": lambda now: any(x is not None and x < 2 for x in now["layers"]["alpha"]),
}


READING = """Read so: without weight decay test accuracy falls by some 15 points in each of the five runs, from about step 250,000 on, with
training accuracy at 1 throughout; `correlation_trap` fires anywhere between long before the peak and long after it, and `over_trained` not at all.
Clipping the large elements when it fires changes little. Weight decay of 0.01 keeps the accuracy, although traps are there, too. Arms differ in how
far they have been trained (“at the end”)."""


def suite_c(lines: list[Run]) -> str:
    """The tables of suite C."""
    arms: dict[str, dict[int, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        arms[line["arm"]][line["seed"]].append(line)
    draw_c(arms)
    rows = []
    for arm, seeds in arms.items():
        best = [max(line["test"] for line in run) for run in seeds.values()]
        peaks = [max(run, key=lambda line: line["test"])["step"] for run in seeds.values()]
        last = [run[-1]["test"] for run in seeds.values()]
        rows.append((arm, each(best), " / ".join(f"{step / 1000:.0f}k" for step in peaks), each(last)))
    said = [
        "## C. Anti-grokking",
        "150 digits, a perceptron 64 – 96 – 96 – 10, initial weights × 8, mean squared error, AdamW 4e-3, no batches; 40 looks at "
        "evenly spaced logarithms of the step. Test accuracy in %, a number for each seed.",
        tabulate(rows, ("arm", "best", "at step", "at the end"), "github", disable_numparse=True),
        "Where each rule fires first, and what stopping there would have cost against the best look of the run; “end”: what going on "
        "to the end costs.",
        table_c(arms),
        READING,
        "![Test accuracy over the steps](images/triggers_c.png)",
        "*Test accuracy; a triangle where `correlation_trap` first fires.*",
    ]
    return "\n\n".join(said)


def each(values: Sequence[float]) -> str:
    """Shares, in %, one for each seed."""
    return " / ".join(f"{100 * value:.0f}" for value in values)


def table_c(arms: dict[str, dict[int, list[Run]]]) -> str:
    """Where each rule fires, and its cost."""
    rows = []
    for arm, seeds in arms.items():
        for rule, holds in RULES_C.items():
            cells = []
            for run in seeds.values():
                at = next((line for line in run if line["step"] and holds(line)), None)
                best = max(line["test"] for line in run)
                cells.append("never" if at is None else f"{at['step'] / 1000:.0f}k: {100 * (best - at['test']):.1f}")
            rows.append((arm, rule, " / ".join(cells)))
        stops = [validation_stop([line["test_loss"] for line in run], patience=3)[1] for run in seeds.values()]
        cells = [
            f"{run[at - 1]['step'] / 1000:.0f}k: {100 * (max(line['test'] for line in run) - run[at - 1]['test']):.1f}"
            for run, at in zip(seeds.values(), stops, strict=True)
        ]
        rows.append((arm, "test loss, three looks without a lower one", " / ".join(cells)))
        ends = [100 * (max(line["test"] for line in run) - run[-1]["test"]) for run in seeds.values()]
        rows.append((arm, "end", " / ".join(f"{end:.1f}" for end in ends)))
    return tabulate(rows, ("arm", "rule", "step: points lost, a seed each"), "github", disable_numparse=True)


def draw_c(arms: dict[str, dict[int, list[Run]]]) -> None:
    """The picture of suite C."""
    figure, all_axes = plot.subplots(1, len(arms), figsize=(3.2 * len(arms), 3.4), sharey=True, squeeze=False)
    for axes, (arm, seeds) in zip(all_axes[0], arms.items(), strict=True):
        for run in seeds.values():
            [line] = axes.semilogx([max(one["step"], 50) for one in run], [100 * one["test"] for one in run])
            first = next((one for one in run if one["step"] and "correlation_trap" in one["fired"]), None)
            if first is not None:
                axes.plot(first["step"], 100 * first["test"], "^", color=line.get_color(), markersize=9)
        axes.set_title(arm, fontsize=9)
        axes.set_xlabel("step")
        axes.grid(alpha=0.2)
    all_axes[0][0].set_ylabel("test accuracy, %")
    save(figure, "triggers_c.png")
