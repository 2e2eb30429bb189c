"""The factor that mixed precision has put on gradients: by fused optimizers only, since they step with scaled ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from lightning_ww.callbacks._gradients.scaling import scale_of


def test_only_an_optimizer_that_unscales_by_itself_has_scaled_gradients() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    plain, fused = (torch.optim.Adam([parameter], fused=is_fused) for is_fused in (False, True))
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    scaler.scale(torch.ones(1))  # makes its tensor
    scaled: Any = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))
    off = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=torch.amp.GradScaler("cpu", enabled=False)))
    assert scale_of(scaled, plain) is None
    found = scale_of(scaled, fused)
    assert found is not None
    assert float(found) == 64
    for other in (off, SimpleNamespace(precision_plugin=SimpleNamespace())):
        without: Any = other
        assert scale_of(without, fused) is None
