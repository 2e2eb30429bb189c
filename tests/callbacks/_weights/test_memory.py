"""What the monitor of the weights remembers goes through a checkpoint."""

from __future__ import annotations

from lightning_ww import analyze
from lightning_ww.callbacks._weights.initial_weights import InitialWeightsKeeper
from lightning_ww.callbacks._weights.logged_layers import LoggedLayers
from lightning_ww.callbacks._weights.memory import WeightMemory
from lightning_ww.callbacks._weights.pictures import WeightPictures


def memory(initial: InitialWeightsKeeper | None = None) -> WeightMemory:
    return WeightMemory(initial, LoggedLayers(60), WeightPictures(None, 10, compare=False, drawn={}))


def test_its_state_gives_the_same_back() -> None:
    import torch

    first, second = memory(), memory()
    first.logged.choose(analyze(torch.nn.Linear(32, 32)), [])
    first.pictures.wait(["weight"], 3)
    first.floors = {"weight": 0.01}
    state = first.state_dict()
    assert state == {"initial": None, "logged": state["logged"], "undrawn": ["weight"], "floors": {"weight": 0.01}}
    second.load_state_dict(state)
    assert second.state_dict() == state
    assert second.logged.names == ["weight"]


def test_without_initial_weights_their_metrics_are_lost() -> None:
    assert memory().lost(["distance_from_init"]) == ["distance_from_init"]
    assert memory(InitialWeightsKeeper()).lost(["distance_from_init"]) == []
    assert memory().write() is None
