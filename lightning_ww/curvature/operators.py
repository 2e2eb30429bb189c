"""The Hessian of a loss as an operator: products with vectors, without the matrix.

Operators are ``linear_operator.LinearOperator``s, as GPyTorch uses, so that its decompositions work on them. Products are
exact derivatives, by backward passes over a graph of the gradient. The graph is built once and kept, so the weights must
not change in place while an operator is in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from linear_operator import LinearOperator
from torch import Tensor

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError, LightningWWError
from lightning_ww.curvature.second_derivatives.context import differentiable_twice

Batches = Callable[[], Tensor] | Sequence[tuple[float, Callable[[], Tensor]]]
"""A loss, or several losses, each with its weight: the size of the batch over which it is the mean."""


class WrongDerivativeError(LightningWWError, ValueError):
    """A derivative that autograd gets wrong, or does not have. It is a `ValueError`."""


class NotFiniteError(LightningWWError, ValueError):
    """A loss or a product that is NaN or infinite. It is a `ValueError`."""


class CurvatureOperator(LinearOperator):  # type: ignore[misc]
    """A symmetric operator on the flattened parameters, given by its product with a vector.

    The methods are overridden because LinearOperator would otherwise rebuild the operator from its tensors at each
    product, and with it the graph of the gradient.
    """

    def __init__(self, product: Callable[[Tensor], Tensor], params: Sequence[Tensor]) -> None:
        super().__init__(product=product, params=params)
        self._product = product
        self._params = list(params)
        self._dim = sum(real(parameter).numel() for parameter in params)
        self._memory: Tensor | None = None  # of products, while it is reused

    @contextmanager
    def reused_memory(self) -> Iterator[None]:
        """Write all products to the same memory: each is lost at the next one. New memory takes a third of a gradient."""
        self._memory = torch.empty(0, dtype=self.dtype, device=self.device)  # which the first product enlarges
        try:
            yield
        finally:
            self._memory = None

    def _keep(self, is_kept: Sequence[bool]) -> None:
        self._params = [parameter for parameter, one in zip(self._params, is_kept, strict=True) if one]
        self._dim = sum(real(parameter).numel() for parameter in self._params)

    @property
    def params(self) -> list[Tensor]:
        """The parameters, in the order of the flat vector."""
        return self._params

    @property
    def dtype(self) -> torch.dtype:  # noqa: D102
        return self._params[0].dtype.to_real()

    @property
    def device(self) -> torch.device:  # noqa: D102
        return self._params[0].device

    def representation(self) -> tuple[Tensor, ...]:
        """No tensors, as the operator is not rebuilt from tensors."""
        return ()

    def representation_tree(self) -> Any:
        """A tree that gives the operator itself, from no tensors."""
        return _Itself(self)

    def matmul(self, other: Tensor) -> Tensor:
        """The product with a vector, shape ``(P,)``, or with the columns of a matrix, shape ``(P, m)``."""
        return self._matmul(other)

    def to_dense(self) -> Tensor:
        """The matrix, shape ``(P, P)``, by P products."""
        dense = self._matmul(torch.eye(self._dim, dtype=self.dtype, device=self.device))
        return (dense + dense.T) / 2

    def clone(self) -> LinearOperator:
        """The operator itself, as it has no numbers to copy."""
        return self

    def detach(self) -> LinearOperator:
        """The operator itself, as its products have no graph."""
        return self

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


class HessianOperator(CurvatureOperator):
    """The Hessian of a loss at the current weights, ``H v = ∂/∂w ⟨∂L/∂w, v⟩``.

    The graph of the gradient is made once. If the weights move, the next product makes it anew. A complex parameter counts
    as pairs of reals, its real and its imaginary parts.

    Args:
        loss: A function ``() -> 0-d tensor`` of the current weights; or several, each with its weight (the batch's
            size), for their weighted mean.
        params: The parameters to differentiate with respect to.

    Attributes:
        is_reached: Whether the loss depends on each of the parameters; one without effect on it has zero rows.

    Raises:
        ArgumentError: If no parameter requires a gradient, or a loss is not a scalar. It is a `ValueError`.
        NotFiniteError: If a loss is NaN or infinite. It is a `ValueError`.

    Example:
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> H = HessianOperator(lambda: w[0] ** 2 * w[1], [w])
        >>> H @ torch.tensor([1.0, 0.0])
        tensor([4., 2.])
    """

    def __init__(self, loss: Batches, params: Sequence[Tensor]) -> None:
        params = checked("HessianOperator", params)
        self._losses = shares("HessianOperator", loss)
        self.values: list[Tensor] = []  # of each loss, 0-d, with its graph
        slopes = self._gradients(params)
        self.is_reached = [any(parts[i] is not None for _, parts in slopes) for i in range(len(params))]
        if not any(self.is_reached):
            raise ArgumentError("`HessianOperator(loss=...)` does not depend on any of `params`.")
        self._parts = slopes
        self._slopes: list[tuple[float, Tensor]] | None = None
        self._versions = [parameter._version for parameter in params]
        super().__init__(self._times, params)

    def restrict(self, is_kept: Sequence[bool]) -> None:
        """Leave parameters out: the matrix has no rows and columns of them any more."""
        self._parts = [
            (share, [part for part, one in zip(parts, is_kept, strict=True) if one]) for share, parts in self._parts
        ]
        self._slopes = None
        self._keep(is_kept)
        self._versions = [parameter._version for parameter in self._params]

    @property
    def slopes(self) -> list[tuple[float, Tensor]]:
        """The share and the gradient of each loss, flat, with its graph."""
        if self._slopes is None:
            with differentiable_twice():
                self._slopes = [(share, _filled(parts, self._params)) for share, parts in self._parts]
        return self._slopes

    def _gradients(self, params: Sequence[Tensor]) -> list[tuple[float, Sequence[Tensor | None]]]:
        slopes: list[tuple[float, Sequence[Tensor | None]]] = []
        self.values = []
        with differentiable_twice():
            for share, batch_loss in self._losses:
                value = _scalar("HessianOperator", batch_loss())
                self.values.append(value)
                if value.requires_grad:  # else a constant
                    slopes.append((share, torch.autograd.grad(value, params, create_graph=True, allow_unused=True)))
        return slopes

    def each(self, vector: Tensor) -> list[Tensor]:
        """The products of each loss's own Hessian with a vector, without their shares."""
        weights, images = parts_of(vector, self._params), []
        with differentiable_twice():
            for _, parts in self._parts:
                pairs = [(p, w) for p, w in zip(parts, weights, strict=True) if p is not None and p.requires_grad]
                slopes, cotangents = zip(*pairs, strict=True) if pairs else ((), ())
                images.append(gradient(slopes, self._params, cotangents) if pairs else torch.zeros_like(vector))
        return images

    def _times(self, vector: Tensor) -> Tensor:
        versions = [parameter._version for parameter in self._params]
        if versions != self._versions:
            self._parts, self._slopes, self._versions = self._gradients(self._params), None, versions
        weights, total = parts_of(vector, self._params), None
        with differentiable_twice():
            for share, parts in self._parts:
                pairs = [(p, w) for p, w in zip(parts, weights, strict=True) if p is not None and p.requires_grad]
                if not pairs:  # a loss that is linear in the weights has no Hessian
                    continue
                slopes, cotangents = zip(*pairs, strict=True)
                image = gradient(slopes, self._params, cotangents, out=self._memory if total is None else None)
                image = image if share == 1 else image.mul_(share)
                total = image if total is None else total.add_(image)
        return torch.zeros_like(vector) if total is None else total


class ScaledOperator(CurvatureOperator):
    """``D^½ A D^½`` with D diagonal and not negative: the curvature in coordinates of plain gradient descent.

    Args:
        operator: The operator A, of P parameters.
        scale: The diagonal of D, shape ``(P,)``.
    """

    def __init__(self, operator: CurvatureOperator, scale: Tensor) -> None:
        root = scale.sqrt()
        super().__init__(lambda vector: root * (operator @ (root * vector)), operator.params)


class ShiftedOperator(CurvatureOperator):
    """``±A + D`` with D diagonal: the curvature with weight decay.

    Args:
        operator: The operator A, of P parameters.
        sign: 1 or -1.
        shift: The diagonal of D, shape ``(P,)``.
    """

    def __init__(self, operator: CurvatureOperator, sign: float, shift: Tensor) -> None:
        super().__init__(lambda vector: sign * (operator @ vector) + shift * vector, operator.params)


class ReducedOperator(CurvatureOperator):
    """An operator whose products are combined with those of other processes, each of which has a part of the data.

    Args:
        operator: The operator of this process's part of the data.
        reduce: A collective call that combines the products of all processes. A product that fails in this process is
            passed to it as NaN, so that no process waits for another; the exception is kept in ``error``.
    """

    def __init__(self, operator: CurvatureOperator, reduce: Callable[[Tensor], Tensor]) -> None:
        self.error: Exception | None = None

        def product(vector: Tensor) -> Tensor:
            own = torch.full_like(vector, torch.nan)
            if self.error is None:
                try:
                    own = operator @ vector
                except Exception as error:
                    self.error = error
            return reduce(own)

        super().__init__(product, operator.params)


class _Itself:
    """A representation tree of one operator that needs no tensors."""

    def __init__(self, operator: LinearOperator) -> None:
        self._operator = operator

    def __call__(self, *tensors: Tensor) -> LinearOperator:
        return self._operator


def gradient(
    value: Tensor | Sequence[Tensor],
    params: Sequence[Tensor],
    weight: Tensor | Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """The gradient of ``⟨value, weight⟩`` with respect to the parameters, flat, shape ``(P,)``, in the memory ``out``."""
    parts = torch.autograd.grad(
        value, params, weight, create_graph=create_graph, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    flat = [real(part).reshape(-1) for part in parts]
    return torch.cat(flat) if out is None else torch.cat(flat, out=out)


def real(tensor: Tensor) -> Tensor:
    """The tensor, or pairs of its real and imaginary parts if it is complex."""
    if not tensor.is_complex():
        return tensor
    if tensor.requires_grad:  # the backward pass of a view fails at an odd place of a flat vector
        return torch.stack([tensor.real, tensor.imag], dim=-1)
    return torch.view_as_real(tensor.resolve_conj())


@contextmanager
def unseen_writes(params: Sequence[Tensor]) -> Iterator[None]:
    """Allow writes to parameters that a graph refers to; the writer must restore the values that it was built with."""
    with torch.autograd._unsafe_preserve_version_counter(tuple(params)):  # type: ignore[attr-defined]
        yield


def parts_of(vector: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """A flat vector, shape ``(P,)``, split into the parameters' shapes, in their dtypes."""
    parts = torch.split(vector, [real(parameter).numel() for parameter in params])
    return [
        torch.view_as_complex(part.reshape(*parameter.shape, 2).clone()).to(parameter.dtype)
        if parameter.is_complex()
        else part.view_as(parameter).to(parameter.dtype)
        for part, parameter in zip(parts, params, strict=True)
    ]


def _filled(parts: Sequence[Tensor | None], params: Sequence[Tensor]) -> Tensor:
    """The parts of a gradient, zeros where there is none, flat."""
    filled = [torch.zeros_like(p) if part is None else part for p, part in zip(params, parts, strict=True)]
    return torch.cat([real(part).reshape(-1) for part in filled])


def shares(call: str, loss: Batches) -> list[tuple[float, Callable[[], Tensor]]]:
    """The share of each batch in the weighted mean, and its function."""
    if callable(loss):
        return [(1.0, loss)]
    expected = "a function without arguments, or a list of pairs of a size and such a function"
    if not isinstance(loss, Sequence) or isinstance(loss, str):
        raise _checks.unfit_object(call, "loss", expected, f"a `{type(loss).__name__}`")
    if not all(isinstance(pair, Sequence) and len(pair) == 2 and callable(pair[1]) for pair in loss):
        raise _checks.unfit_object(call, "loss", expected, "a list of something else")
    if not loss or any(not size > 0 for size, _ in loss):
        sizes = f"{[size for size, _ in loss]}"
        raise _checks.unfit_object(call, "loss", "one batch or more, each of a positive size", sizes)
    total = sum(size for size, _ in loss)
    return [(size / total, batch_loss) for size, batch_loss in loss]


def _scalar(call: str, value: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        raise _checks.unfit_object(call, "loss", "a 0-d tensor", repr(value))
    if value.ndim:
        raise _checks.unfit_object(call, "loss", "a 0-d tensor", f"one of shape {tuple(value.shape)}")
    if not bool(torch.isfinite(value)):
        raise NotFiniteError(f"`{call}(loss=...)` gives a loss of {float(value.detach())}.")
    return value


def checked(call: str, params: Sequence[Tensor]) -> list[Tensor]:
    """The parameters that require gradients, each once."""
    if isinstance(params, Tensor):
        raise _checks.unfit_object(call, "params", "several tensors", "one: pass `[tensor]`")
    params = list(params) if isinstance(params, Iterable) else []
    if not params or not all(isinstance(parameter, Tensor) for parameter in params):
        raise _checks.unfit_object(call, "params", "one tensor or more, in a list", "something else")
    unique = {id(parameter): parameter for parameter in params if parameter.requires_grad}
    if not unique:
        raise ArgumentError(f"`{call}(params=...)` has no tensor that requires a gradient.")
    return list(unique.values())
