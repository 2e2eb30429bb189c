"""Sharding is seen by the parameters themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from lightning_ww.callbacks._monitor.guard import RefusedError
from lightning_ww.callbacks._monitor.sharded import refuse_sharded


class FullyShardedDataParallel(nn.Linear):
    """As torch's FSDP1 is called."""


def marked(name: str) -> nn.Module:
    layer = nn.Linear(2, 2)
    setattr(layer.weight, name, True)
    return layer


SHARDED: dict[str, Callable[[], nn.Module]] = {
    "DTensor": lambda: marked("full_tensor"),
    "flat parameter": lambda: marked("_is_flat_param"),
    "wrapper": lambda: FullyShardedDataParallel(2, 2),
    "without values": lambda: nn.Linear(2, 2, device="meta"),
}


@pytest.mark.parametrize("kind", SHARDED)
def test_sharded_parameters_are_refused_under_any_strategy(kind: str) -> None:
    with pytest.raises(RefusedError, match="Under `MyStrategy` no process holds the parameters whole"):
        refuse_sharded(SHARDED[kind](), type("MyStrategy", (), {}))


def test_whole_parameters_are_fine_but_not_under_a_strategy_that_hides_its_shards() -> None:
    refuse_sharded(nn.Linear(2, 2), type("DDPStrategy", (), {}))
    hiding = type("DeepSpeedStrategy", (), {})
    for strategy in (hiding, type("Mine", (hiding,), {})):
        with pytest.raises(RefusedError, match=f"Under `{strategy.__name__}` no process"):
            refuse_sharded(nn.Linear(2, 2), strategy)
