"""The generalized Gauss–Newton matrix of a loss as an operator."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
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
from lightning_ww.curvature.second_derivatives.loss_hessians import curve

Engine = Literal["auto", "dual", "double_vjp"]
"""How products with the Jacobian are had: by dual numbers, by the derivative of a backward pass, or by the faster."""

MISMATCH = 1e-3
"""⟨u, J Jᵀu⟩ and ‖Jᵀu‖² differ by float32's roundings, or by much more than this."""

DUAL_PASSES = 2
"""Dual numbers cost a forward pass and its derivative: what is faster than two forward passes is faster than they."""

NOT_TRANSPOSED = (
    "the outputs' derivative is not the transpose of its backward pass: a custom function's backward cannot be "
    "differentiated, or its forward derivative is another function's"
)


class GGNOperator(CurvatureOperator):
    """The generalized Gauss–Newton matrix, ``G v = Jᵀ ∇²ℓ(z) J v``.

    It is the Hessian as if the outputs were linear in the weights; positive semidefinite where ℓ is convex. Jᵀ is a
    backward pass over a graph that is built once. J is a forward pass with dual numbers, or the derivative of that
    backward pass; which is faster depends on the model. ∇²ℓ is closed for one call of
    `torch.nn.functional.cross_entropy`, `mse_loss` or `binary_cross_entropy_with_logits`, and by autograd for others.

    Args:
        outputs: ``() -> z`` at the current weights, any shape; or several, each with its weight (the batch's size).
        loss: ``z -> 0-d tensor``, convex in z; as many as there are outputs.
        params: What to differentiate by.
        engine: ``"dual"``, ``"double_vjp"``, or ``"auto"`` (default): the faster, tried at the first product.
        check: Whether to hold J against Jᵀ at the first product; needless where that was done. Default: ``True``.

    Raises:
        ArgumentError: If there is no parameter to differentiate by, or a loss is not a scalar. It is a `ValueError`.
        WrongDerivativeError: In the first product, if neither way gives the derivative.

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
        pushes = _Pushes(engine, check=check)
        parts = []
        with differentiable_twice() as rewritten:
            for (share, one), judge in zip(shares("GGNOperator", outputs), losses, strict=True):
                jacobian = _Jacobian(one, params, rewritten if engine != "dual" else None)
                if not jacobian.outputs.requires_grad:
                    raise ArgumentError("`GGNOperator(outputs=...)` does not depend on any of `params`.")
                parts.append((share, jacobian, curve(judge, jacobian.outputs)))

        def product(vector: Tensor) -> Tensor:
            with differentiable_twice():
                total = torch.zeros_like(vector)
                for share, jacobian, curved in parts:
                    total += share * jacobian.pull(curved(pushes(jacobian, vector)))
            return total

        super().__init__(product, params)
        self._pushes = pushes

    @property
    def engine(self) -> Engine:
        """The one in use; ``"auto"`` until it is decided."""
        return self._pushes.engine


class _Jacobian:
    """The derivative J of the outputs by the parameters: products with it and with its transpose."""

    def __init__(self, outputs: Callable[[], Tensor], params: Sequence[Tensor], rewritten: Rewritten | None) -> None:
        self._function, self._params = outputs, params
        self.outputs, self.seconds = _timed(outputs)
        self._cotangent = torch.zeros_like(self.outputs, requires_grad=True)
        # Jᵀu, whose derivative by u is J
        self._pulled = None
        if rewritten is not None and self.outputs.requires_grad:
            with rewritten.linear_in_cotangents():
                self._pulled = gradient(self.outputs, params, self._cotangent, create_graph=True)

    def pull(self, vector: Tensor) -> Tensor:
        """``Jᵀ u``."""
        return gradient(self.outputs, self._params, vector)

    def push(self, vector: Tensor, engine: Engine) -> Tensor:
        """``J v``."""
        if engine == "dual":
            return self._push_dual(vector)
        assert self._pulled is not None
        return torch.autograd.grad(self._pulled, self._cotangent, vector, retain_graph=True)[0]

    def forget_double(self) -> None:
        """Free what only ``"double_vjp"`` needs."""
        self._pulled = None

    def _push_dual(self, vector: Tensor) -> Tensor:
        # The parameters are given their own values, with tangents: the outputs are a function of nothing, and read them
        # where they are.
        with torch.no_grad(), forward_ad.dual_level(), unseen_writes(self._params):
            for parameter, tangent in zip(self._params, parts_of(vector, self._params), strict=True):
                parameter.copy_(forward_ad.make_dual(parameter.detach(), tangent))  # type: ignore[no-untyped-call]
            pushed = forward_ad.unpack_dual(self._function()).tangent  # type: ignore[no-untyped-call]
            return torch.zeros_like(self.outputs) if pushed is None else pushed.clone()


class _Pushes:
    """Products with J by the faster of two ways, found at the first; each is held against Jᵀ before."""

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
        """The faster of the ways that give J: ``⟨u, J Jᵀu⟩ = ‖Jᵀu‖²``, and Jᵀ is a plain backward pass."""
        # not ⟨u, J v⟩ of another v: both sides would be close to zero where there are many parameters
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(jacobian.outputs.shape, generator=generator, dtype=torch.float64).to(jacobian.outputs)
        pulled = jacobian.pull(probe)
        expected = float(pulled.square().sum(dtype=torch.float64))
        seconds: dict[Engine, float] = {}
        errors: list[Exception] = []
        for engine in self._candidates:
            try:
                pushed, taken = _timed(partial(jacobian.push, pulled, engine))
            except (RuntimeError, NotImplementedError) as error:  # an operation without this derivative
                errors.append(error)
                continue
            defect = abs(float((probe * pushed).sum(dtype=torch.float64)) - expected)
            if not defect > MISMATCH * expected:  # NaN is not the derivative's fault
                seconds[engine] = taken
                if taken < DUAL_PASSES * jacobian.seconds:
                    break
        if not seconds:
            raise errors[0] if len(errors) == len(self._candidates) else WrongDerivativeError(NOT_TRANSPOSED)
        if len(seconds) == 2 and seconds["dual"] > seconds["double_vjp"]:
            # once more: the first use of dual numbers in a process loads what the other way does not need
            seconds["dual"] = _timed(partial(jacobian.push, pulled, "dual"))[1]
        return min(seconds, key=seconds.__getitem__)


def _timed(action: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What it gives, and the seconds it took."""
    began = time.perf_counter()
    result = action()
    if result.is_cuda:
        torch.cuda.synchronize(result.device)
    return result, time.perf_counter() - began
