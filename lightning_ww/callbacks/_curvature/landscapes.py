"""The losses and accuracies that are shown along directions of the curvature, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from lightning_ww import _checks
from lightning_ww.callbacks._sandbox.batches import CapturedBatch, batch_size
from lightning_ww.callbacks._sandbox.loss import UnfitBatchError
from lightning_ww.curvature.landscape import Functions, Landscape
from lightning_ww.curvature.second_derivatives.loss_hessians import LossCall, LossCalls

if TYPE_CHECKING:
    from lightning_ww.callbacks._sandbox.loss import SandboxLoss

When = int | Literal["end"] | None
"""Every so many measurements; at the end of the fit; never."""


def checked(call: str, when: When) -> When:
    """The argument ``landscape`` of the class ``call``.

    Raises:
        ArgumentError: If it is out of its domain.
    """
    is_number = isinstance(when, int) and not isinstance(when, bool) and when >= 1
    if not (when is None or when == "end" or is_number):
        raise _checks.unfit(call, "landscape", when, '"end", a number of measurements of at least 1, or `None`')
    return when


class Landscapes:
    """The latest landscape of a fit, and the validation batch that is kept for it.

    Attributes:
        latest: The latest one, or ``None``.
    """

    def __init__(self, when: When) -> None:
        self._when = when
        self.latest: Landscape | None = None
        self.validation: CapturedBatch | None = None
        self.is_new = False  # whether the latest was not shown yet
        self.trouble = ""  # why it has no validation loss

    def is_due(self, number: int | None) -> bool:
        """Tell whether one is taken at the measurement of this number; ``None``: at the end of the fit."""
        if number is None:
            return self._when == "end"
        return isinstance(self._when, int) and number % self._when == 0

    def keep(self, batch: Any, index: int) -> None:
        """Keep a validation batch, if it is the first one and is of use."""
        if self._when is not None and self.validation is None:
            self.validation = CapturedBatch.of(batch, index, batch_size(batch))

    def add(self, landscape: Landscape) -> None:
        """Make this one the latest."""
        self.latest, self.is_new = landscape, True

    def shown(self) -> Landscape | None:
        """The latest one, if it was not shown yet."""
        was_new, self.is_new = self.is_new, False
        return self.latest if was_new else None


def functions_of(loss: SandboxLoss, validation: CapturedBatch | None) -> tuple[Functions, str]:
    """The losses on the kept batches and on a validation batch, and the accuracies where labels can be told.

    Returns:
        The functions, and why there is no validation loss, if it cannot be evaluated.
    """
    why = ""
    parts = {"train": (loss.batches, loss.shares)}
    if validation is not None:
        parts["validation"] = ([validation], [1.0])
    functions: dict[str, Callable[[], Tensor]] = {}
    for name, (batches, shares) in parts.items():
        seen = _Seen(loss, batches, shares)
        try:
            seen()
        except UnfitBatchError as error:
            if name == "train":
                raise
            why = str(error)
            continue
        functions[f"{name} loss"] = seen
        if seen.accuracy is not None:
            functions[f"{name} accuracy"] = seen.last_accuracy
    return functions, why


class _Seen:
    """The mean loss over batches; the accuracy comes from the same evaluations."""

    def __init__(self, loss: SandboxLoss, batches: Sequence[CapturedBatch], shares: Sequence[float]) -> None:
        self._loss, self._batches, self._shares = loss, batches, shares
        self.accuracy: Tensor | None = None

    def __call__(self) -> Tensor:
        self.accuracy = None  # that of another place would be wrong where the loss fails
        values, hits, total = [], [], sum(self._shares)
        for batch, share in zip(self._batches, self._shares, strict=True):
            with LossCalls() as calls:
                values.append(share / total * self._loss.of(batch))
            hits.append(None if len(calls.seen) != 1 else _accuracy(calls.seen[0]))
        known = [share / total * hit for share, hit in zip(self._shares, hits, strict=True) if hit is not None]
        self.accuracy = torch.stack(known).sum() if len(known) == len(hits) else None
        return torch.stack(values).sum()

    def last_accuracy(self) -> Tensor:
        """The accuracy at the weights at which the loss was evaluated last."""
        return torch.tensor(float("nan")) if self.accuracy is None else self.accuracy


def _accuracy(call: LossCall) -> Tensor | None:
    """The share of right labels, if the call is a cross-entropy with labels."""
    target = call.arguments["target"]
    if call.function is not functional.cross_entropy or target.is_floating_point():
        return None
    labels = call.outputs.detach().argmax(0 if call.outputs.ndim == 1 else 1)
    counted = target != call.arguments["ignore_index"]
    return (labels == target)[counted].double().mean() if bool(counted.any()) else None
