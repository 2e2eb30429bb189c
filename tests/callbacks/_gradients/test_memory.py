"""What the monitor of gradients remembers goes through a checkpoint."""

from __future__ import annotations

import pickle

from torch import nn

from lightning_ww.callbacks._gradients.memory import GradientMemory
from lightning_ww.callbacks._monitor.logged_layers import LoggedLayers
from lightning_ww.gradients import GradientReader
from lightning_ww.gradients.layers import layers_of


def test_its_state_gives_the_same_back_and_the_parameters_stay() -> None:
    memory = GradientMemory(GradientReader(*layers_of(nn.Linear(2, 2))), LoggedLayers(60))
    memory.logged.names = ["a", "b"]
    other = GradientMemory(None, LoggedLayers(60))
    assert not other.load_state_dict(memory.state_dict())
    assert other.logged.names == ["a", "b"]
    assert not other.load_state_dict({})
    assert other.load_state_dict({"logged": 3})  # a sentence
    assert pickle.loads(pickle.dumps(memory)).reader is None
