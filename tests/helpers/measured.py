"""A run whose curvature is measured, and the dense Hessian that it should be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from helpers.networks import Batch, data, quiet_trainer
from helpers.tiny import Batches
from lightning_ww._columns import packed, unpacked
from lightning_ww.callbacks import CurvatureMonitor


def fit(model: Any, **arguments: Any) -> tuple[CurvatureMonitor, Batches, Trainer]:
    """Train for an epoch, measuring before and after; errors are raised unless told otherwise."""
    precision = arguments.pop("precision", "64-true")
    defaults: dict[str, Any] = {"every_n_epochs": 1, "num_steps": 60, "on_error": "raise"}
    monitor, batches = CurvatureMonitor(**(defaults | arguments)), Batches()
    trainer = quiet_trainer(callbacks=[batches, monitor], max_epochs=1, precision=precision, limit_train_batches=3)
    trainer.fit(model, data(), data(16, shuffle=False))
    return monitor, batches, trainer


def dense(twin: Any, batch: Batch, *, training: bool = False) -> Tensor:
    """Eigenvalues of the Hessian of what `reference` returns, else of the training step, by torch.autograd.functional."""
    torch.compiler.set_stance("force_eager")
    for module in twin.modules():
        module.training = training and isinstance(module, nn.BatchNorm1d)
    step = getattr(twin, "reference", twin.training_step)
    named = {name: p for name, p in twin.named_parameters() if p.requires_grad}
    parts = torch.autograd.grad(step(copy.copy(batch), 0), list(named.values()), allow_unused=True)
    named = {name: p for (name, p), part in zip(named.items(), parts, strict=True) if part is not None}

    class Calling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = twin

        def forward(self) -> Any:
            return step(batch, 0)

    def loss(w: Tensor) -> Tensor:
        parts = torch.split(w, [p.numel() for p in named.values()])
        pairs = zip(parts, named.items(), strict=True)
        weights = {f"inner.{name}": part.view_as(p) for part, (name, p) in pairs}
        return torch.func.functional_call(Calling(), weights, ())  # type: ignore[no-any-return]

    flat = torch.cat([p.detach().reshape(-1) for p in named.values()])
    H: Tensor = torch.autograd.functional.hessian(loss, flat)  # type: ignore[no-untyped-call]
    return torch.as_tensor(torch.linalg.eigvalsh(H))


def measurements_in(state: Any) -> list[Any]:
    """The states of the measurements in a monitor's state."""
    return [one for columns in state["history"]["measurements"] for one in unpacked(columns)]


def altered(state: Any, number: int, change: Callable[[Any], object]) -> None:
    """Change the state of one measurement in a monitor's state."""
    states = measurements_in(state)
    change(states[number])
    state["history"]["measurements"] = [packed(states)]
