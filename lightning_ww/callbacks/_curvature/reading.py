"""The curvature of a run's loss at this moment, over the batches of all its processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from lightning_ww.callbacks._sandbox.loss import LossFn, OutputsFn, Probe
from lightning_ww.callbacks._sandbox.mute import BatchNormMode, quiet
from lightning_ww.curvature.density import UNCONVERGED, SpectralDensity, spectral_density
from lightning_ww.curvature.edge_of_stability import Stability, single_rate, stability
from lightning_ww.curvature.ggn import Engine, GGNOperator
from lightning_ww.curvature.krylov import Storage, lanczos
from lightning_ww.curvature.operators import (
    CurvatureOperator,
    HessianOperator,
    ReducedOperator,
    WrongDerivativeError,
)
from lightning_ww.curvature.parameters import select_parameters
from lightning_ww.curvature.second_derivatives.context import differentiable_twice
from lightning_ww.curvature.second_derivatives.self_check import check_gradient, check_second_derivatives, first_line

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer
    from lightning_ww.callbacks._sandbox.batches import CapturedBatch

T = TypeVar("T")

Matrix = Literal["hessian", "ggn"]

FIRST_ONLY = 'try `matrix="ggn"`, which needs first derivatives of the network only, or pass another `loss_fn=`'

REMEDIES = (
    ("use_reentrant", "checkpoint with `use_reentrant=False`"),
    ("once_differentiable", "leave the layers out with `params=`, or pass another `loss_fn=`"),
    (
        "not the same twice",
        "pass `loss_fn=` with a loss of weights and batch alone, or `self_check=False`",
    ),
    ("Recomputed values", "leave weight norm out of the checkpoint, or pass another `loss_fn=`"),
    ("does not depend on any", "the loss is detached from the parameters that are measured, or taken under `no_grad`"),
    ("derivative for", FIRST_ONLY),
    ("double backward", FIRST_ONLY),
)
"""What autograd says where it cannot give a second derivative, and what helps."""

FAST_DEV_RUN_STEPS = 4
"""Lanczos steps under `fast_dev_run`: the whole path, cheaply."""

SHARDED = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy", "XLAFSDPStrategy")
"""Strategies under which no process holds the parameters."""

NO_PARAMETERS = "under `{}` no process holds the parameters. Train on one device or by DDP to see the curvature."

WARM_STEPS, COLD_STEPS = 3, 12
"""Lanczos steps by which the sharpness is followed: from the last direction, and from a random one."""

ELSEWHERE = "leave the layers out with `params=`, or pass another `loss_fn=`; `self_check=False` measures it as it is"


class RefusedError(RuntimeError):
    """The curvature of this loss cannot be had; the message says what can be done."""


@dataclass(frozen=True)
class CurvatureFound:
    """One measurement."""

    density: SpectralDensity
    stability: Stability | None
    num_samples: int  # in the batches of all processes
    engine: str


class CurvatureRun:
    """What is measured, and what was learned about how."""

    def __init__(
        self,
        matrix: Matrix,
        params: Sequence[str] | None,
        loss_fn: LossFn | None,
        outputs_fn: OutputsFn | None,
        batch_norm: BatchNormMode,
        seed: int,
        storage: Storage,
        *,
        self_check: bool,
        preconditioned: bool,
    ) -> None:
        self._matrix, self._params, self._batch_norm, self._seed = matrix, params, batch_norm, seed
        self._loss_fn, self._outputs_fn = loss_fn, outputs_fn
        self._self_check, self._preconditioned = self_check, preconditioned
        self._engine: Engine = "auto"
        self._storage: Storage = storage
        self._top: Tensor | None = None  # the direction of largest curvature when it was followed last
        self._is_tried = False

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_top": None}  # as large as the weights

    def measure(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batches: Sequence[CapturedBatch],
        num_steps: int,
        num_probes: int,
    ) -> CurvatureFound:
        """Measure, on every process alike: what fails on one fails on all.

        Raises:
            RefusedError: If derivatives of this loss are wrong, or cannot be had.
        """
        measure = partial(self._measure, trainer, num_steps=num_steps, num_probes=num_probes)
        return self._quietly(trainer, pl_module, batches, measure)

    def try_out(self, trainer: Trainer, pl_module: LightningModule, batches: Sequence[CapturedBatch]) -> None:
        """Find out whether it can be measured, without measuring."""
        self._quietly(trainer, pl_module, batches, lambda *_: None)

    def follow(
        self, trainer: Trainer, pl_module: LightningModule, batches: Sequence[CapturedBatch]
    ) -> dict[str, float]:
        """The sharpness alone, from where it was the last time: three products, or more where it has moved."""
        return self._quietly(trainer, pl_module, batches, partial(self._follow, trainer))

    def _quietly(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batches: Sequence[CapturedBatch],
        action: Callable[[CurvatureOperator, CurvatureOperator, list[Tensor], int], T],
    ) -> T:
        """What an action returns, given all processes' operator, this one's, the parameters, and how many samples."""
        with quiet(trainer, pl_module, self._batch_norm):
            chosen = select_parameters(pl_module, self._params)
            params = list(chosen.values())  # those that the optimisers know
            make = partial(Probe, pl_module, list(chosen), self._loss_fn, self._outputs_fn, self._seed)
            probe = _on_all(trainer, make)

            def inside() -> T:
                own = _on_all(trainer, partial(self._prepare, probe, batches))
                self._is_tried = True
                num_samples = sum(captured.size for captured in batches)
                if trainer.world_size == 1:
                    return action(own, own, params, num_samples)
                part, num_samples = (
                    num_samples,
                    int(_summed(trainer, torch.tensor(float(num_samples), device=own.device))),
                )
                operator = ReducedOperator(own, lambda vector: _summed(trainer, part / num_samples * vector))
                try:
                    return action(operator, own, params, num_samples)
                except ValueError:
                    if operator.error is not None:
                        raise operator.error from None
                    raise

            return probe.inside(inside)

    def _measure(
        self,
        trainer: Trainer,
        operator: CurvatureOperator,
        own: CurvatureOperator,
        params: list[Tensor],
        num_samples: int,
        num_steps: int,
        num_probes: int,
    ) -> CurvatureFound:
        density = spectral_density(
            operator, num_steps=num_steps, num_probes=num_probes, seed=self._seed, storage=self._storage
        )
        stable = stability(
            operator,
            density.sharpness,
            params,
            trainer.optimizers,
            seed=self._seed,
            preconditioned=self._preconditioned,
        )
        engine = "Hessian, reverse over reverse"
        if isinstance(own, GGNOperator):
            self._engine, engine = own.engine, f"Gauss–Newton, {own.engine}"
        return CurvatureFound(density, stable, num_samples, engine)

    def _follow(
        self,
        trainer: Trainer,
        operator: CurvatureOperator,
        own: CurvatureOperator,
        params: list[Tensor],
        num_samples: int,
    ) -> dict[str, float]:
        if self._top is not None and self._top.numel() != operator.shape[0]:
            self._top = None  # parameters have joined, or left
        start = self._top
        if start is None:
            start = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(self._seed))
        start = start.to(dtype=operator.dtype, device=operator.device)
        for num_steps in (COLD_STEPS,) if self._top is None else (WARM_STEPS, COLD_STEPS):
            krylov = lanczos(lambda vector: operator @ vector, start, num_steps)
            sharpness, start, residual = krylov.top()
            if residual <= UNCONVERGED * abs(sharpness):
                break
        self._top = start
        found = {"curvature/sharpness": sharpness, "curvature/sharpness_residual": residual}
        if (rate := single_rate(params, trainer.optimizers)) is not None:
            found["curvature/lr_sharpness"] = rate * sharpness / 2
        return found

    def _prepare(self, probe: Probe, batches: Sequence[CapturedBatch]) -> CurvatureOperator:
        """The operator over this process's batches; the first time it is tried out."""
        try:
            with differentiable_twice():
                operator = (
                    self._gauss_newton(probe, batches) if self._matrix == "ggn" else self._hessian(probe, batches)
                )
            if not self._is_tried and self._self_check:
                check = check_gradient if self._matrix == "ggn" else check_second_derivatives
                check(partial(self._loss, probe, batches[0]), probe.params)
            if not self._is_tried:
                operator @ torch.ones(operator.shape[0], dtype=operator.dtype, device=operator.device)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            sentence = first_line(error)
            for sign, remedy in REMEDIES:
                if sign in str(error):
                    raise RefusedError(f"{sentence}: {remedy}") from error
            if isinstance(error, WrongDerivativeError):
                raise RefusedError(f"{sentence}: {ELSEWHERE}") from error
            raise
        return operator

    def _loss(self, probe: Probe, captured: CapturedBatch) -> Tensor:
        if self._matrix == "hessian":
            return probe.loss(captured)
        outputs, judge = probe.judged(captured)
        return judge(outputs)

    def _hessian(self, probe: Probe, batches: Sequence[CapturedBatch]) -> HessianOperator:
        return HessianOperator([(float(one.size), partial(probe.loss, one)) for one in batches], probe.params)

    def _gauss_newton(self, probe: Probe, batches: Sequence[CapturedBatch]) -> GGNOperator:
        outputs, losses = [], []
        for captured in batches:
            first, judge = probe.judged(captured)
            outputs.append((float(captured.size), _first_then(first, probe, captured)))
            losses.append(judge)
        return GGNOperator(outputs, losses, probe.params, self._engine, check=not self._is_tried)


def _on_all(trainer: Trainer, action: Callable[[], T]) -> T:
    """What an action without collective calls returns, once it has succeeded on every process; else an error on each."""
    error: Exception | None = None
    try:
        result = action()
    except Exception as failed:
        error = failed
    if trainer.world_size > 1:
        is_fine = trainer.strategy.reduce_boolean_decision(error is None, all=True)
        is_refused = trainer.strategy.reduce_boolean_decision(isinstance(error, RefusedError), all=False)
        if not is_fine and error is None:
            error = RefusedError("Another process refused") if is_refused else RuntimeError("another process failed")
    if error is not None:
        raise error
    return result


def _first_then(first: Tensor, probe: Probe, captured: CapturedBatch) -> Callable[[], Tensor]:
    """What was computed already, once; after that, computed again."""
    known = [first]
    return lambda: known.pop() if known else probe.judged(captured)[0]


def _summed(trainer: Trainer, tensor: Tensor) -> Tensor:
    """The sum over all processes."""
    return torch.as_tensor(trainer.strategy.reduce(tensor, reduce_op="sum"))
