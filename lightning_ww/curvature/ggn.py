"""The generalized Gauss–Newton matrix of a loss, as an operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError
from lightning_ww.curvature.operators import (
    CurvatureOperator,
    WrongDerivativeError,
    checked,
    gradient,
    parts_of,
    shares,
    unseen_writes,
)
from lightning_ww.curvature.second_derivatives.context import Rewritten, differentiable_twice
from lightning_ww.curvature.second_derivatives.loss_hessians import Product, hessian_of

Engine = Literal["auto", "dual", "double_vjp"]
"""The ways of multiplying by the Jacobian: dual numbers, the derivative of a backward pass, or that which is right."""

MISMATCH = 1e-3
"""The largest relative difference between ⟨u, J Jᵀu⟩ and ‖Jᵀu‖², far above rounding and far below that of a wrong J."""

ROUNDINGS = 32
"""The roundings by which these may differ at least: in 16 bits products differ by more than the above."""

NOT_TRANSPOSED = (
    "the outputs' derivative is not the transpose of its backward pass: a custom function's backward cannot be "
    "differentiated, or its forward derivative is another function's"
)


class GGNOperator(CurvatureOperator):
    """The generalized Gauss–Newton matrix, ``G v = Jᵀ ∇²ℓ(z) J v``.

    It is the Hessian as if the outputs were linear in the weights, and positive semidefinite if ℓ is convex. Jᵀ is a
    backward pass over a graph that is built once. J is the derivative of that backward pass, or a forward pass with dual
    numbers. ∇²ℓ has a closed form for a single call of
    `torch.nn.functional.cross_entropy`, `mse_loss` or `binary_cross_entropy_with_logits`; for others it is by autograd.

    Args:
        outputs: A function ``() -> z`` of the current weights, z of any shape; or several such functions, each with its
            weight (the batch's size).
        loss: A function ``z -> 0-d tensor``, convex in z; one for each of the ``outputs``.
        params: The parameters to differentiate with respect to.
        engine: ``"dual"``, ``"double_vjp"``, or ``"auto"`` (default): the derivative of the backward
            pass, which is the faster of the two on most models, or dual numbers where it is not right.
        check: Whether to check J against Jᵀ at the first product; not needed if that was done before. Default: ``True``.

    Attributes:
        is_reached: Whether the outputs depend on each of the parameters.

    Raises:
        ArgumentError: If no parameter requires a gradient, or a loss is not a scalar. It is a `ValueError`.
        WrongDerivativeError: In the first product, if neither engine gives the derivative.

    References:
        Schraudolph (2002), Fast curvature matrix-vector products for second-order gradient descent, Neural
        Computation 14(7).

    Example:
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> G = GGNOperator(lambda: w[0] * w[1], lambda z: z.square(), [w])
        >>> G @ torch.tensor([1.0, 0.0])
        tensor([8., 4.])
    """

    def __init__(
        self,
        outputs: Callable[[], Tensor] | Sequence[tuple[float, Callable[[], Tensor]]],
        loss: Callable[[Tensor], Tensor] | Sequence[Callable[[Tensor], Tensor]],
        params: Sequence[Tensor],
        engine: Engine = "auto",
        check: bool = True,
    ) -> None:
        if engine not in get_args(Engine):
            raise _checks.unfit("GGNOperator", "engine", engine, f"one of {get_args(Engine)}")
        params = checked("GGNOperator", params)
        losses = [loss] if callable(loss) else list(loss)
        if len(losses) != (1 if callable(outputs) else len(outputs)):
            raise _checks.unfit_object("GGNOperator", "loss", "as many losses as outputs", f"{len(losses)}")
        self._pushes = _Pushes(engine, check=check)
        self._functions = list(zip(shares("GGNOperator", outputs), losses, strict=True))
        with differentiable_twice():
            found = [output() for (_, output), _ in self._functions]
            parts = [_parts(z, params) for z in found]
        self.is_reached = [any(part[i] is not None for part in parts) for i in range(len(params))]
        if not any(self.is_reached):
            raise ArgumentError("`GGNOperator(outputs=...)` does not depend on any of `params`.")
        self._found: list[Tensor] | None = found
        self._jacobians: list[tuple[float, _Jacobian, Product]] | None = None
        self._versions = [parameter._version for parameter in params]
        super().__init__(self._times, params)

    def restrict(self, is_kept: Sequence[bool]) -> None:
        """Leave parameters out: the matrix has no rows and columns of them any more."""
        if not all(is_kept):
            self._keep(is_kept)
            self._jacobians = None
            self._versions = [parameter._version for parameter in self._params]

    def _made(self) -> list[tuple[float, _Jacobian, Product]]:
        """The Jacobians, made at the first product, and anew when the weights have moved."""
        versions = [parameter._version for parameter in self._params]
        if versions != self._versions:
            self._found, self._jacobians, self._versions = None, None, versions
        if self._jacobians is None:
            self._jacobians = []
            with differentiable_twice() as rewritten:
                for i, ((share, output), judge) in enumerate(self._functions):
                    z = output() if self._found is None else self._found[i]
                    jacobian = _Jacobian(output, z, self._params, rewritten if self.engine != "dual" else None)
                    self._jacobians.append((share, jacobian, hessian_of(judge, z)))
        return self._jacobians

    def _times(self, vector: Tensor) -> Tensor:
        with differentiable_twice():
            total = None
            for share, jacobian, curved in self._made():
                out = self._memory if total is None else None
                image = jacobian.pull(curved(self._pushes(jacobian, vector)), out)
                image = image if share == 1 else image.mul_(share)
                total = image if total is None else total.add_(image)
        assert total is not None  # there is at least one loss
        return total

    @property
    def engine(self) -> Engine:
        """The engine in use; ``"auto"`` until one is chosen."""
        return self._pushes.engine


def _parts(z: Tensor, params: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """The gradient of the outputs' sum; ``None`` for parameters that they do not depend on."""
    if not z.requires_grad:
        return [None] * len(params)
    return torch.autograd.grad(z.sum(), params, retain_graph=True, allow_unused=True)


class _Jacobian:
    """The derivative J of the outputs with respect to the parameters: products with J and with Jᵀ."""

    def __init__(
        self, function: Callable[[], Tensor], outputs: Tensor, params: Sequence[Tensor], rewritten: Rewritten | None
    ) -> None:
        self._function, self.outputs, self._params = function, outputs, params
        self._cotangent = torch.zeros_like(self.outputs, requires_grad=True)
        # Jᵀu, whose derivative with respect to u is J
        self._pulled = None
        if rewritten is not None and self.outputs.requires_grad:
            with rewritten.linear_in_cotangents():
                self._pulled = gradient(self.outputs, params, self._cotangent, create_graph=True)

    def pull(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """The product ``Jᵀ u``, in the memory ``out``."""
        return gradient(self.outputs, self._params, vector, out=out)

    def push(self, vector: Tensor, engine: Engine) -> Tensor:
        """The product ``J v``."""
        if engine == "dual":
            return self._push_dual(vector)
        assert self._pulled is not None
        return torch.autograd.grad(self._pulled, self._cotangent, vector, retain_graph=True)[0]

    def forget_double(self) -> None:
        """Free the graph that only ``"double_vjp"`` needs."""
        self._pulled = None

    def _push_dual(self, vector: Tensor) -> Tensor:
        # The function of the outputs has no arguments: it reads the parameters in place. So they get their own values
        # again, with tangents.
        with torch.no_grad(), forward_ad.dual_level(), unseen_writes(self._params):
            for parameter, tangent in zip(self._params, parts_of(vector, self._params), strict=True):
                parameter.copy_(forward_ad.make_dual(parameter.detach(), tangent))  # type: ignore[no-untyped-call]
            pushed = forward_ad.unpack_dual(self._function()).tangent  # type: ignore[no-untyped-call]
            return torch.zeros_like(self.outputs) if pushed is None else pushed.clone()


class _Pushes:
    """Products with J by the first engine that is right: each is checked against Jᵀ at the first product."""

    def __init__(self, engine: Engine, *, check: bool) -> None:
        self.engine = engine
        self._candidates: tuple[Engine, ...] = ("double_vjp", "dual") if engine == "auto" else (engine,)
        self._is_decided = engine != "auto" and not check

    def __call__(self, jacobian: _Jacobian, vector: Tensor) -> Tensor:
        if not self._is_decided:
            self.engine, self._is_decided = self._decide(jacobian), True
        if self.engine == "dual":
            jacobian.forget_double()
        return jacobian.push(vector, self.engine)

    def _decide(self, jacobian: _Jacobian) -> Engine:
        """The first engine that gives J: ``⟨u, J Jᵀu⟩ = ‖Jᵀu‖²``, where Jᵀ is a plain backward pass."""
        # not ⟨u, J v⟩ with an independent v: with many parameters, both sides would be close to zero
        generator = torch.Generator().manual_seed(0)
        cotangent = torch.randn(jacobian.outputs.shape, generator=generator, dtype=torch.float64).to(jacobian.outputs)
        pulled = jacobian.pull(cotangent)
        expected = float(pulled.square().sum(dtype=torch.float64))
        tolerance = max(MISMATCH, ROUNDINGS * torch.finfo(jacobian.outputs.dtype).eps)
        errors: list[Exception] = []
        for engine in self._candidates:
            try:
                pushed = jacobian.push(pulled, engine)
            except (RuntimeError, NotImplementedError) as error:  # an operation without this derivative
                errors.append(error)
                continue
            defect = abs(float((cotangent * pushed).sum(dtype=torch.float64)) - expected)
            if not defect > tolerance * expected:  # NaN is not the derivative's fault
                return engine
        raise errors[0] if len(errors) == len(self._candidates) else WrongDerivativeError(NOT_TRANSPOSED)
