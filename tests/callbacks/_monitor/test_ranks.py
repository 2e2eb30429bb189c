"""Work is shared out evenly, and what one process cannot find is an error on all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_ww._errors import LightningWWError
from lightning_ww.callbacks._monitor import ranks as sharing
from lightning_ww.callbacks._monitor.ranks import owners, parts_of_all
from lightning_ww.callbacks._weights.snapshot import work
from lightning_ww.weights.analysis import read
from lightning_ww.weights.layers import find_layers


def loads(works: list[float], ranks: int) -> list[float]:
    owned = owners(works, ranks)
    return [sum(one for one, owner in zip(works, owned, strict=True) if owner == rank) for rank in range(ranks)]


def test_the_most_work_goes_first_to_the_process_with_the_least() -> None:
    assert owners([1.0, 5.0, 2.0, 2.0, 0.0], 2) == [1, 0, 1, 1, 0]
    assert owners([3.0, 3.0], 1) == [0, 0]
    assert owners([], 3) == []


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_the_slowest_of_a_gpt_has_at_most_1_15_of_its_share(ranks: int) -> None:
    shapes = [(512, 1536), (512, 512), (512, 2048), (2048, 512)] * 24
    with torch.device("meta"):
        model = nn.Sequential(nn.Embedding(8000, 512), *(nn.Linear(*shape) for shape in shapes), nn.Linear(512, 8000))
    model = model.to_empty(device="cpu")
    works = [work(one) for one in read(find_layers(model)[0], include_frozen=True)]
    assert max(loads(works, ranks)) <= 1.15 * sum(works) / ranks


def test_an_error_on_one_process_is_an_error_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> int:
        raise MemoryError("too much")

    answers: list[Any] = []

    def from_all(trainer: Any, own: Any) -> list[Any]:
        answers.append(own)
        return [own, ([2], "None")]

    monkeypatch.setattr(sharing, "from_all", from_all)
    trainer: Any = None
    assert parts_of_all(trainer, lambda: 1) == [1, 2]
    with pytest.raises(MemoryError, match="too much"):
        parts_of_all(trainer, failing)
    assert answers[-1] == ([], "too much")  # the others are told
    monkeypatch.setattr(sharing, "from_all", lambda trainer, own: [own, ([], "too much")])
    with pytest.raises(LightningWWError, match="another process failed: too much"):
        parts_of_all(trainer, lambda: 1)
