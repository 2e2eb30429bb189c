"""The triggers that are raised if they are named, by name, for ``stop_on=["plateau"]``."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_ww.triggers.exploding_gradients import ExplodingGradients
from lightning_ww.triggers.instability import Instability
from lightning_ww.triggers.not_learning import NotLearning
from lightning_ww.triggers.over_trained import OverTrained
from lightning_ww.triggers.plateau import Plateau
from lightning_ww.triggers.sharpness import Sharpness
from lightning_ww.triggers.trigger import Trigger
from lightning_ww.triggers.under_trained import UnderTrained
from lightning_ww.triggers.vanishing_gradients import VanishingGradients

NAMED: Mapping[str, type[Trigger]] = {
    kind.name: kind
    for kind in (
        *(OverTrained, UnderTrained, NotLearning, Sharpness, Plateau, Instability),
        *(VanishingGradients, ExplodingGradients),
    )
}
"""The classes by the names of their triggers."""
