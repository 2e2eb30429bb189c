"""The overview under TensorBoard's Custom Scalars: the charts and their curves.

TensorBoard merges the layouts of all runs that it shows, and confuses two charts with equal names. So a chart has equal
content in all runs that have it, and each monitor has its own category.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_ww.callbacks._monitor.view import Chart, full_key

Layout = dict[str, dict[str, list[object]]]
"""``["Multiline" or "Margin", tags]`` by category and chart, as `SummaryWriter.add_custom_scalars` takes it."""


@dataclass(frozen=True)
class Category:
    """The charts of one monitor."""

    group: str
    prefix: str  # before each key
    title: str
    charts: Sequence[Chart]


GROUPS = ("ww", "curvature")
"""The groups whose costs share a chart, in every run, whether or not it has both monitors."""


def overview(categories: Sequence[Category]) -> Layout:
    """Lay out the charts of these monitors, and below the monitors of each prefix the cost of measuring."""
    layout: Layout = {}
    for prefix in dict.fromkeys(category.prefix for category in categories):
        name = f"lightning-ww {prefix}".rstrip()
        for category in categories:
            if category.prefix == prefix:
                lines = [chart for chart in category.charts if not chart.is_band]
                bands = [chart for chart in category.charts if chart.is_band]
                # TensorBoard shows lines from the first to the last, and then bands from the last to the first
                ordered = (*lines, *reversed(bands))
                layout[f"{name}: {category.title}"] = {chart.title: _lines_of(chart, category) for chart in ordered}
        costs: dict[str, list[object]] = {}
        others = [
            category.group for category in categories if category.prefix == prefix and category.group not in GROUPS
        ]
        for groups in (GROUPS, *((group,) for group in others)):
            suffix = "" if groups is GROUPS else f": {groups[0]}"
            for key, title in (("overhead", "share of training time"), ("seconds", "seconds of a measurement")):
                costs[title + suffix] = _lines([full_key(key, group, prefix) for group in groups])
        layout[f"{name}: what measuring costs"] = costs
    return layout


def flagged_layers() -> Chart:
    """The chart with the number of flagged layers for each trigger."""
    return Chart("flagged layers", ("flags",))


def _lines_of(chart: Chart, category: Category) -> list[object]:
    if chart == flagged_layers():
        return ["Multiline", [re.escape(category.prefix) + r"flags/.*"]]
    tags = [full_key(key, category.group, category.prefix) for key in chart.keys]
    return ["Margin", tags] if chart.is_band else _lines(tags)


def _lines(tags: Sequence[str]) -> list[object]:
    """A chart of lines. TensorBoard takes tags as patterns, so each is escaped to match only itself."""
    return ["Multiline", [re.escape(tag) + "$" for tag in tags]]
