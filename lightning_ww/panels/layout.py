"""The overview under TensorBoard's Custom Scalars: which curves stand together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Layout = dict[str, dict[str, list[object]]]
"""By category and chart: ``["Multiline" or "Margin", tags]``, as `SummaryWriter.add_custom_scalars` takes it."""


class Curves(NamedTuple):
    """What a monitor logs."""

    group: str  # what its keys begin with: ``"ww"`` or ``"curvature"``
    prefix: str  # and what stands before that
    bands: tuple[str, ...] = ()  # metrics whose quantiles over the layers there are


def overview(monitors: Sequence[Curves]) -> Layout:
    """The charts of these monitors."""
    layout: Layout = {}
    for prefix in dict.fromkeys(one.prefix for one in monitors):
        ours = [one.group for one in monitors if one.prefix == prefix]
        if bands := [name for one in monitors if one.prefix == prefix for name in one.bands]:
            # a category of their own: TensorBoard shows bands after lines, and the last band first
            layout[f"lightning-ww {prefix}: median and 10–90 % of the layers".replace(" :", ":")] = {
                name: ["Margin", [f"{prefix}ww/{name}_{q}" for q in ("q50", "q10", "q90")]] for name in reversed(bands)
            }
        charts: dict[str, list[object]] = {}
        if "ww" in ours:
            charts["flagged layers"] = ["Multiline", [re.escape(prefix) + r"flags/.*"]]
            charts |= _lines(prefix, {"alpha_weighted and log_norm": ("ww/alpha_weighted", "ww/log_norm")})
        if "curvature" in ours:
            edge = ("curvature/sharpness", "curvature/stability_edge")
            charts |= _lines(prefix, {"sharpness, and its edge 2/lr": edge})
        charts |= _lines(
            prefix,
            {
                "share of training time": tuple(f"{group}/overhead" for group in ours),
                "seconds of a measurement": tuple(f"{group}/seconds" for group in ours),
            },
        )
        layout[f"lightning-ww {prefix}: the whole network".replace(" :", ":")] = charts
    return layout


def _lines(prefix: str, charts: Mapping[str, Sequence[str]]) -> dict[str, list[object]]:
    """Tags are patterns there: ours are to match themselves alone."""
    return {title: ["Multiline", [re.escape(prefix + tag) + "$" for tag in tags]] for title, tags in charts.items()}
