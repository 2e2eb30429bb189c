"""The overview under TensorBoard's Custom Scalars: which curves stand together.

TensorBoard merges the layouts of all runs that it shows, and cannot tell apart two charts of one name. So a chart is the
same in each run that has it, and each monitor has a category of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

Layout = dict[str, dict[str, list[object]]]
"""By category and chart: ``["Multiline" or "Margin", tags]``, as `SummaryWriter.add_custom_scalars` takes it."""

GROUPS = ("ww", "curvature")


class Curves(NamedTuple):
    """What a monitor logs."""

    group: str  # what its keys begin with, one of `GROUPS`
    prefix: str  # and what stands before that
    bands: tuple[str, ...] = ()  # metrics whose quantiles over the layers there are


def overview(monitors: Sequence[Curves]) -> Layout:
    """The charts of these monitors."""
    layout: Layout = {}
    for prefix in dict.fromkeys(one.prefix for one in monitors):
        ours = {one.group: one for one in monitors if one.prefix == prefix}
        name = f"lightning-ww {prefix}".rstrip()
        if "ww" in ours:
            layout[f"{name}: the weights, with bands of median and 10–90 % of the layers"] = {
                "flagged layers": ["Multiline", [re.escape(prefix) + r"flags/.*"]],
                "alpha_weighted and log_norm": _lines(prefix, "ww/alpha_weighted", "ww/log_norm"),
                **{metric: _band(prefix, metric) for metric in reversed(ours["ww"].bands)},  # the last is shown first
            }
        if "curvature" in ours:
            layout[f"{name}: the loss's curvature"] = {
                "sharpness, and its edge 2/lr": _lines(prefix, "curvature/sharpness", "curvature/stability_edge")
            }
        layout[f"{name}: what measuring costs"] = {
            "share of training time": _lines(prefix, *(f"{group}/overhead" for group in GROUPS)),
            "seconds of a measurement": _lines(prefix, *(f"{group}/seconds" for group in GROUPS)),
        }
    return layout


def _lines(prefix: str, *tags: str) -> list[object]:
    """Tags are patterns there: ours are to match themselves alone."""
    return ["Multiline", [re.escape(prefix + tag) + "$" for tag in tags]]


def _band(prefix: str, metric: str) -> list[object]:
    """The quantiles over the layers: the line, its lower and its upper side."""
    return ["Margin", [f"{prefix}ww/{metric}_{q}" for q in ("q50", "q10", "q90")]]
