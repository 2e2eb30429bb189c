"""Triggers: conditions on a history of measurements that flag layers. They know no Trainer, and stop nothing."""

from lightning_ww.triggers.correlation_trap import CorrelationTrap
from lightning_ww.triggers.diagnosis import Diagnosis, Flag, diagnose
from lightning_ww.triggers.exploding_gradients import ExplodingGradients
from lightning_ww.triggers.instability import Instability
from lightning_ww.triggers.nonfinite import Nonfinite
from lightning_ww.triggers.not_learning import NotLearning
from lightning_ww.triggers.over_trained import OverTrained
from lightning_ww.triggers.plateau import Plateau
from lightning_ww.triggers.rank_collapse import RankCollapse
from lightning_ww.triggers.sharpness import Sharpness
from lightning_ww.triggers.trigger import Trigger
from lightning_ww.triggers.under_trained import UnderTrained
from lightning_ww.triggers.vanishing_gradients import VanishingGradients

__all__ = [
    "CorrelationTrap",
    "Diagnosis",
    "ExplodingGradients",
    "Flag",
    "Instability",
    "Nonfinite",
    "NotLearning",
    "OverTrained",
    "Plateau",
    "RankCollapse",
    "Sharpness",
    "Trigger",
    "UnderTrained",
    "VanishingGradients",
    "diagnose",
]
