"""The closed second derivatives of losses against the dense Hessian of the same call, in float64."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lightning_ww.curvature.second_derivatives.loss_hessians import LossCalls, hessian_of

N, C = 6, 4
LABELS = torch.tensor([0, 3, 1, 1, 2, 0])
IGNORED = torch.tensor([0, -100, 1, 1, -100, 0])
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
SOFT = torch.softmax(torch.arange(N * C, dtype=torch.float64).reshape(N, C).sin(), 1)
HALVES = torch.rand(N, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

WEIGHTED_MSE: Any = lambda z: functional.mse_loss(z, HALVES, weight=WEIGHT.expand(N, C))  # type: ignore[call-arg]  # noqa: E731

CLOSED: dict[str, Any] = {
    "labels": partial(functional.cross_entropy, target=LABELS),
    "labels, sum": partial(functional.cross_entropy, target=LABELS, reduction="sum"),
    "labels, weighted": partial(functional.cross_entropy, target=LABELS, weight=WEIGHT),
    "labels as bytes, weighted": partial(functional.cross_entropy, target=LABELS.to(torch.uint8), weight=WEIGHT),
    "labels, ignored": partial(functional.cross_entropy, target=IGNORED, weight=WEIGHT, label_smoothing=0.1),
    "labels, smoothed": partial(functional.cross_entropy, target=LABELS, weight=WEIGHT, label_smoothing=0.2),
    "probabilities": partial(functional.cross_entropy, target=SOFT),
    "probabilities, weighted and smoothed": partial(
        functional.cross_entropy, target=SOFT, weight=WEIGHT, label_smoothing=0.3
    ),
    "mse": partial(functional.mse_loss, target=HALVES),
    "mse, sum": partial(functional.mse_loss, target=HALVES, reduction="sum"),
    "bce": partial(functional.binary_cross_entropy_with_logits, target=HALVES),
    "bce, weighted": partial(
        functional.binary_cross_entropy_with_logits, target=HALVES, weight=WEIGHT, pos_weight=2 * WEIGHT
    ),
    "bce, sum": partial(functional.binary_cross_entropy_with_logits, target=HALVES, reduction="sum"),
}
BY_AUTOGRAD: dict[str, Any] = {
    "scaled": lambda z: 3 * functional.cross_entropy(z, LABELS),
    "two calls": lambda z: functional.mse_loss(z, HALVES) + functional.cross_entropy(z, LABELS),
    "by hand": lambda z: functional.nll_loss(functional.log_softmax(z, 1), LABELS),
    "target of another shape": lambda z: functional.mse_loss(z.unsqueeze(0), HALVES.unsqueeze(0)),
    "weighted mse": WEIGHTED_MSE,
    "means by hand": lambda z: functional.cross_entropy(z, LABELS, reduction="none").mean(),
    "a target of the outputs": lambda z: functional.mse_loss(z, z.sin()),
    "huber": lambda z: functional.huber_loss(z, 5 * HALVES, delta=0.5),
}


def dense(loss: Any, z: Tensor) -> Tensor:
    """∇²ℓ by torch.autograd.functional, which sees no closed form."""
    matrix = torch.autograd.functional.hessian(lambda flat: loss(flat.view_as(z)), z.reshape(-1))  # type: ignore[no-untyped-call]
    return torch.as_tensor(matrix)


@pytest.mark.parametrize(("kind", "is_closed"), [*((k, True) for k in CLOSED), *((k, False) for k in BY_AUTOGRAD)])
def test_product_equals_the_dense_hessians(kind: str, is_closed: bool) -> None:
    loss = (CLOSED if is_closed else BY_AUTOGRAD)[kind]
    z, u = torch.randn(2, N, C, dtype=torch.float64)
    product = hessian_of(loss, z)
    assert (product.__name__ != "by_autograd") == is_closed
    torch.testing.assert_close(product(u).reshape(-1), dense(loss, z) @ u.reshape(-1), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("shape", [(C,), (N, C, 2, 3)], ids=["one sample", "pixels"])
def test_cross_entropy_of_other_shapes_equals_the_dense_hessian(shape: tuple[int, ...]) -> None:
    z, u = torch.randn(2, *shape, dtype=torch.float64)
    target = torch.tensor(2) if len(shape) == 1 else torch.randint(C, (N, 2, 3))
    loss = partial(functional.cross_entropy, target=target)
    product = hessian_of(loss, z)
    assert product.__name__ != "by_autograd"
    torch.testing.assert_close(product(u).reshape(-1), dense(loss, z) @ u.reshape(-1), rtol=1e-10, atol=1e-13)


def test_a_loss_that_is_linear_in_the_outputs_has_no_curvature() -> None:
    z = torch.randn(3)
    assert torch.equal(hessian_of(lambda z: z.sum(), z)(z), torch.zeros(3))


def test_a_call_can_be_made_again_with_other_outputs() -> None:
    z, other = torch.randn(2, N, C)
    with LossCalls() as calls:
        torch.nn.CrossEntropyLoss(label_smoothing=0.1)(z, LABELS)
        functional.l1_loss(z, other)
    (call,) = calls.seen
    assert call.outputs is z
    assert torch.equal(call.of(other), functional.cross_entropy(other, LABELS, label_smoothing=0.1))


def test_a_loss_that_is_no_scalar_is_an_error() -> None:
    message = "`GGNOperator(loss=...)`: expected a 0-d tensor, but got one of shape (3,)."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        hessian_of(lambda z: z, torch.zeros(3))
