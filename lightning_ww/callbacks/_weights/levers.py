"""What a user of the monitor does to get a metric that has no value."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_ww.weights.metric import Need

LEVERS: Mapping[Need, str] = {
    "mp_fit": "not asked for (name it in `metrics=`)",
    "floor": "measured only at the first measurement of a run",
    "cka": "not asked for (name it in `metrics=`)",
    "bootstrap": "not asked for (name it in `metrics=`)",
    "attention": "not asked for (name it in `metrics=`)",
    "previous": "not asked for (name it in `metrics=`)",
    "initial": "no initial weights are kept (name a `distance_from_init` in `metrics=`)",
    "shuffle": "not asked for (`shuffle='off'`)",
}
"""For each input of metrics, the reason if it was not requested, with the argument of the monitor that requests it."""
