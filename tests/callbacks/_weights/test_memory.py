"""What the monitor of the weights remembers goes through a checkpoint."""

from __future__ import annotations

import torch

from lightning_ww import analyze
from lightning_ww.callbacks._weights.binned_layers import BinnedLayers
from lightning_ww.callbacks._weights.initial_weights import InitialWeightsKeeper
from lightning_ww.callbacks._weights.memory import WeightMemory
from lightning_ww.callbacks._weights.pictures import WeightPictures
from lightning_ww.weights.kept_shuffle import KeptShuffle


def memory(initial: InitialWeightsKeeper | None = None) -> WeightMemory:
    return WeightMemory(initial, BinnedLayers(60), WeightPictures(None, 10, compare=False, drawn={}))


def test_its_state_gives_the_same_back() -> None:
    first, second = memory(), memory()
    first.logged.choose(analyze(torch.nn.Linear(32, 32)), [])
    first.pictures.wait(["weight"], 3)
    first.floors = {"weight": 0.01}
    numbers = torch.arange(3.0, dtype=torch.float64)
    one = numbers.numpy()
    first.kept = {"weight": KeptShuffle(numbers[None].numpy(), one, one, one, one, 3, 0)}
    state = first.state_dict()
    floors, kept = {"weight": 0.01}, state["kept"]
    assert state == {"initial": None, "logged": state["logged"], "undrawn": ["weight"], "floors": floors, "kept": kept}
    assert not second.load_state_dict(state)
    assert second.state_dict().keys() == state.keys()
    torch.testing.assert_close(second.state_dict()["kept"], kept, rtol=0, atol=0)
    assert second.logged.names == ["weight"]


def test_without_initial_weights_their_metrics_are_lost() -> None:
    assert memory().lost(["distance_from_init"]) == ["distance_from_init"]
    assert memory(InitialWeightsKeeper()).lost(["distance_from_init"]) == []
    assert memory().write() is None
