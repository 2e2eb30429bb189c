"""Hessian and generalised Gauss–Newton matrix of a loss as operators: products with vectors, without the matrix.

Both are ``linear_operator.LinearOperator``s, GPyTorch's own, so that its decompositions work on them. Products are
exact derivatives, by backward passes over a graph of the gradient that is built once and kept: the weights must not
change in place while an operator is in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from linear_operator import LinearOperator
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Batches = Callable[[], Tensor] | Sequence[tuple[float, Callable[[], Tensor]]]
"""One loss, or several with their weights: the sizes of the batches that they are means over."""


class _CurvatureOperator(LinearOperator):  # type: ignore[misc]
    """A symmetric operator on the flattened parameters, given by its product with a vector.

    The overridden methods are those by which LinearOperator would otherwise rebuild an operator from its tensors at
    each product, and with it the graph of the gradient.
    """

    def __init__(self, product: Callable[[Tensor], Tensor], params: Sequence[Tensor]) -> None:
        super().__init__(product=product, params=params)
        self._product = product
        self._params = list(params)
        self._dim = sum(parameter.numel() for parameter in params)

    @property
    def dtype(self) -> torch.dtype:
        return self._params[0].dtype

    @property
    def device(self) -> torch.device:
        return self._params[0].device

    def representation(self) -> tuple[Tensor, ...]:
        """Nothing: the operator is not rebuilt from tensors."""
        return ()

    def representation_tree(self) -> Any:
        """Itself, which is what rebuilding it from nothing gives."""
        return _Itself(self)

    def matmul(self, other: Tensor) -> Tensor:
        """The product with a vector, shape ``(P,)``, or with the columns of a matrix, shape ``(P, m)``."""
        return self._matmul(other)

    def to_dense(self) -> Tensor:
        """The matrix, shape ``(P, P)``, by P products."""
        dense = self._matmul(torch.eye(self._dim, dtype=self.dtype, device=self.device))
        return (dense + dense.T) / 2

    def _size(self) -> torch.Size:
        return torch.Size((self._dim, self._dim))

    def _transpose_nonbatch(self) -> LinearOperator:
        return self

    def _matmul(self, rhs: Tensor) -> Tensor:
        if rhs.ndim == 1:
            return self._product(rhs)
        return torch.stack([self._product(column) for column in rhs.unbind(-1)], dim=-1)

    def _diagonal(self) -> Tensor:
        return self.to_dense().diagonal()


class HessianOperator(_CurvatureOperator):
    """The Hessian of a loss at the current weights, ``H v = ∂/∂w ⟨∂L/∂w, v⟩``.

    Args:
        loss: ``() -> 0-d tensor`` at the current weights; or several, each with its weight (the batch's size), for
            their weighted mean.
        params: What to differentiate by. A parameter that the loss does not depend on has zero rows.

    Raises:
        ValueError: If there is no parameter to differentiate by, or a loss is not a scalar.

    Example:
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> H = HessianOperator(lambda: w[0] ** 2 * w[1], [w])
        >>> H @ torch.tensor([1.0, 0.0])
        tensor([4., 2.])
    """

    def __init__(self, loss: Batches, params: Sequence[Tensor]) -> None:
        params = _checked("HessianOperator", params)
        with _differentiable_twice():
            gradients = [
                (share, _gradient(_scalar("HessianOperator", one()), params, create_graph=True))
                for share, one in _shares(loss)
            ]

        def product(vector: Tensor) -> Tensor:
            total = torch.zeros_like(vector)
            with _differentiable_twice():
                for share, gradient in gradients:
                    if gradient.requires_grad:  # a loss that is linear in the weights has no Hessian
                        total += share * _gradient(gradient, params, vector)
            return total

        super().__init__(product, params)


class GGNOperator(_CurvatureOperator):
    """The generalised Gauss–Newton matrix, ``G v = Jᵀ ∇²ℓ(z) J v``.

    It is the Hessian as if the outputs were linear in the weights; positive semidefinite where ℓ is convex.

    Args:
        outputs: ``() -> z`` at the current weights, any shape.
        loss: ``z -> 0-d tensor``, convex in z.
        params: What to differentiate by.

    Raises:
        ValueError: If there is no parameter to differentiate by, or the loss is not a scalar.
    """

    def __init__(
        self, outputs: Callable[[], Tensor], loss: Callable[[Tensor], Tensor], params: Sequence[Tensor]
    ) -> None:
        params = _checked("GGNOperator", params)
        with _differentiable_twice():
            z = outputs()
            leaf = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(_scalar("GGNOperator", loss(leaf)), leaf, create_graph=True)
            cotangent = torch.zeros_like(z, requires_grad=True)
            pulled = _gradient(z, params, cotangent, create_graph=True)  # Jᵀu, whose derivative by u is J

        def product(vector: Tensor) -> Tensor:
            with _differentiable_twice():
                (pushed,) = torch.autograd.grad(pulled, cotangent, vector, retain_graph=True)
                if not slope.requires_grad:  # a loss that is linear in the outputs
                    return torch.zeros_like(vector)
                (curved,) = torch.autograd.grad(slope, leaf, pushed, retain_graph=True)
                return _gradient(z, params, curved)

        super().__init__(product, params)


class _Itself:
    """A representation tree of one operator that needs no tensors."""

    def __init__(self, operator: LinearOperator) -> None:
        self._operator = operator

    def __call__(self, *tensors: Tensor) -> LinearOperator:
        return self._operator


@contextmanager
def _differentiable_twice() -> Iterator[None]:
    """What a second derivative needs: no fused kernel, compiled graph or half precision that has none."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(torch.autocast("cpu", enabled=False))
        if torch.cuda.is_available():
            stack.enter_context(torch.autocast("cuda", enabled=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _gradient(
    value: Tensor, params: Sequence[Tensor], weight: Tensor | None = None, *, create_graph: bool = False
) -> Tensor:
    """The gradient of ``⟨value, weight⟩`` by the parameters, flat, shape ``(P,)``."""
    parts = torch.autograd.grad(
        value, params, weight, create_graph=create_graph, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([part.reshape(-1) for part in parts])


def _shares(loss: Batches) -> list[tuple[float, Callable[[], Tensor]]]:
    if callable(loss):
        return [(1.0, loss)]
    total = sum(size for size, _ in loss)
    return [(size / total, one) for size, one in loss]


def _scalar(call: str, value: Tensor) -> Tensor:
    if value.ndim:
        raise ValueError(f"`{call}(loss=...)` expected a 0-d tensor, but got one of shape {tuple(value.shape)}.")
    return value


def _checked(call: str, params: Sequence[Tensor]) -> list[Tensor]:
    """The parameters that require gradients, each once."""
    unique = {id(parameter): parameter for parameter in params if parameter.requires_grad}
    if not unique:
        raise ValueError(f"`{call}(params=...)` has no tensor that requires a gradient.")
    return list(unique.values())
