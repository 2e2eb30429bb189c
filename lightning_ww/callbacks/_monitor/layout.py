"""The overview under TensorBoard's Custom Scalars: which curves stand together.

TensorBoard merges the layouts of all runs that it shows, and cannot tell apart two charts of one name. So a chart is the
same in each run that has it, and each monitor has a category of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_ww.callbacks._monitor.view import Chart, full_key

Layout = dict[str, dict[str, list[object]]]
"""By category and chart: ``["Multiline" or "Margin", tags]``, as `SummaryWriter.add_custom_scalars` takes it."""


@dataclass(frozen=True)
class Category:
    """The charts of one monitor."""

    group: str
    prefix: str  # before each key
    title: str
    charts: Sequence[Chart]


def overview(categories: Sequence[Category], groups: Sequence[str]) -> Layout:
    """Lay out these categories; below those of one prefix, what measuring costs.

    Args:
        categories: The charts of each monitor that there is.
        groups: The groups of all monitors that there could be.
    """
    layout: Layout = {}
    for prefix in dict.fromkeys(one.prefix for one in categories):
        name = f"lightning-ww {prefix}".rstrip()
        for one in categories:
            if one.prefix == prefix:
                charts = {chart.title: _lines_of(chart, one) for chart in one.charts}
                # TensorBoard shows the last first
                layout[f"{name}: {one.title}"] = dict(reversed(charts.items()))
        layout[f"{name}: what measuring costs"] = {
            "share of training time": _lines([full_key("overhead", group, prefix) for group in groups]),
            "seconds of a measurement": _lines([full_key("seconds", group, prefix) for group in groups]),
        }
    return layout


def flagged_layers() -> Chart:
    """How many layers are flagged, for each trigger."""
    return Chart("flagged layers", ("flags",))


def _lines_of(chart: Chart, category: Category) -> list[object]:
    if chart == flagged_layers():
        return ["Multiline", [re.escape(category.prefix) + r"flags/.*"]]
    tags = [full_key(key, category.group, category.prefix) for key in chart.keys]
    return ["Margin", tags] if chart.is_band else _lines(tags)


def _lines(tags: Sequence[str]) -> list[object]:
    """Tags are patterns there: ours are to match themselves alone."""
    return ["Multiline", [re.escape(tag) + "$" for tag in tags]]
