"""The reader of the curvature of a run's loss at one moment, over the batches of all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from lightning_ww._errors import LightningWWError
from lightning_ww.callbacks._curvature.findings import Reading
from lightning_ww.callbacks._curvature.refusals import what_helps
from lightning_ww.callbacks._monitor.guard import RefusedError
from lightning_ww.callbacks._monitor.run import Memory
from lightning_ww.callbacks._sandbox import sandbox
from lightning_ww.callbacks._sandbox.loss import LossFn, OutputsFn, SandboxLoss
from lightning_ww.callbacks._sandbox.mute import BatchNormMode
from lightning_ww.curvature.density import spectral_density
from lightning_ww.curvature.edge_of_stability import EdgeOfStability, single_rate
from lightning_ww.curvature.ggn import Engine, GGNOperator
from lightning_ww.curvature.krylov import Storage, lanczos
from lightning_ww.curvature.operators import CurvatureOperator, HessianOperator, ReducedOperator
from lightning_ww.curvature.parameters import select_parameters
from lightning_ww.curvature.quadrature import UNCONVERGED
from lightning_ww.curvature.second_derivatives.context import differentiable_twice
from lightning_ww.curvature.second_derivatives.self_check import check_gradient, check_second_derivatives

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer
    from lightning_ww.callbacks._sandbox.batches import CapturedBatch

T = TypeVar("T")

Matrix = Literal["hessian", "ggn"]

FAST_DEV_RUN_STEPS = 4
"""The number of Lanczos steps under `fast_dev_run`, which runs all of the code at low cost."""

WARM_STEPS, COLD_STEPS = 3, 12
"""The numbers of Lanczos steps that follow the sharpness, from the last direction and from a random direction."""


@dataclass(frozen=True)
class Settings:
    """The monitor's arguments that determine what is read, and how."""

    matrix: Matrix
    params: Sequence[str] | None
    loss_fn: LossFn | None
    outputs_fn: OutputsFn | None
    batch_norm: BatchNormMode
    num_probes: int
    seed: int
    storage: Storage
    self_check: bool
    preconditioned: bool  # whether Lanczos is run also for an optimizer's preconditioner


@dataclass(frozen=True)
class _Matrices:
    """The operators in the sandbox, and what they are made of."""

    whole: CurvatureOperator  # over the batches of all processes
    own: CurvatureOperator  # over the batches of this process
    params: list[Tensor]  # the module's own parameters, which the optimizers know
    num_samples: int  # in the batches of all processes


class CurvatureReader(Memory):
    """A reader of the curvature, which remembers the faster engine and the direction of largest curvature."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine: Engine = "auto"
        self._top: Tensor | None = None  # the direction of largest curvature at the last `follow`
        self._is_tried = False

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_top": None}  # left out: it is as large as the weights

    def read(
        self, trainer: Trainer, pl_module: LightningModule, batches: Sequence[CapturedBatch], num_steps: int
    ) -> Reading:
        """Read the spectrum by ``num_steps`` Lanczos steps, on all processes; an error on one is an error on all.

        Raises:
            RefusedError: If derivatives of this loss are wrong, or do not exist.
        """
        settings = self._settings
        most = FAST_DEV_RUN_STEPS if getattr(trainer, "fast_dev_run", False) else num_steps
        with self._matrices(trainer, pl_module, batches) as matrices:
            density = spectral_density(
                matrices.whole,
                num_steps=min(num_steps, most),
                num_probes=settings.num_probes,
                seed=settings.seed,
                storage=settings.storage,
            )
            edge = EdgeOfStability.of(
                matrices.whole,
                density.sharpness,
                matrices.params,
                trainer.optimizers,
                seed=settings.seed,
                preconditioned=settings.preconditioned,
            )
            engine = "Hessian, reverse over reverse"
            if isinstance(matrices.own, GGNOperator):
                self._engine = matrices.own.engine
                engine = f"Gauss–Newton, {self._engine}"
        known = _num_training_samples(trainer.train_dataloader)
        return Reading(density, edge, matrices.num_samples, engine, known)

    def follow(
        self, trainer: Trainer, pl_module: LightningModule, batches: Sequence[CapturedBatch]
    ) -> dict[str, float]:
        """Follow the sharpness alone, from its last direction: three products, or more if the direction has changed."""
        with self._matrices(trainer, pl_module, batches) as matrices:
            operator = matrices.whole
            if self._top is not None and self._top.numel() != operator.shape[0]:
                self._top = None  # parameters were added or removed
            start = self._top
            if start is None:
                start = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(self._settings.seed))
            start = start.to(dtype=operator.dtype, device=operator.device)
            for num_steps in (COLD_STEPS,) if self._top is None else (WARM_STEPS, COLD_STEPS):
                krylov = lanczos(lambda vector: operator @ vector, start, num_steps)
                sharpness, start, residual = krylov.top()
                if residual <= UNCONVERGED * abs(sharpness):
                    break
            self._top = start
            numbers = {"sharpness": sharpness, "sharpness_residual": residual}
            if (rate := single_rate(matrices.params, trainer.optimizers)) is not None:
                numbers["lr_sharpness"] = rate * sharpness / 2
            return numbers

    @contextmanager
    def _matrices(
        self, trainer: Trainer, pl_module: LightningModule, batches: Sequence[CapturedBatch]
    ) -> Iterator[_Matrices]:
        """Make the operators in the sandbox, which stays open for their products."""
        settings = self._settings
        params = list(select_parameters(pl_module, settings.params).values())
        with ExitStack() as stack:
            box = sandbox(
                trainer,
                pl_module,
                batches,
                params=settings.params,
                loss_fn=settings.loss_fn,
                outputs_fn=settings.outputs_fn,
                batch_norm=settings.batch_norm,
                seed=settings.seed,
            )
            loss = _on_all(trainer, lambda: stack.enter_context(box))
            own = _on_all(trainer, lambda: self._operator(loss))
            self._is_tried = True
            if trainer.world_size == 1:
                yield _Matrices(own, own, params, loss.num_samples)
                return
            counted = _summed(trainer, torch.tensor(float(loss.num_samples), device=own.device))
            whole = ReducedOperator(own, lambda vector: _summed(trainer, loss.num_samples / int(counted) * vector))
            try:
                yield _Matrices(whole, own, params, int(counted))
            except ValueError:
                if whole.error is not None:
                    raise whole.error from None
                raise

    def _operator(self, loss: SandboxLoss) -> CurvatureOperator:
        """The operator over this process's batches, which is checked the first time."""
        with what_helps():
            is_ggn = self._settings.matrix == "ggn"
            with differentiable_twice():
                operator: CurvatureOperator = self._gauss_newton(loss) if is_ggn else _hessian(loss)
            if not self._is_tried and self._settings.self_check:
                first = loss.batches[0]
                if is_ggn:
                    check_gradient(lambda: _judged_loss(loss, first), loss.params)
                else:
                    check_second_derivatives(lambda: loss.of(first), loss.params)
            if not self._is_tried:
                operator @ torch.ones(operator.shape[0], dtype=operator.dtype, device=operator.device)
        return operator

    def _gauss_newton(self, loss: SandboxLoss) -> GGNOperator:
        outputs, losses = [], []
        for captured in loss.batches:
            first, judge = loss.judged(captured)
            outputs.append((float(captured.size), _first_then(first, loss, captured)))
            losses.append(judge)
        return GGNOperator(outputs, losses, loss.params, self._engine, check=not self._is_tried)


def _hessian(loss: SandboxLoss) -> HessianOperator:
    return HessianOperator([(float(batch.size), partial(loss.of, batch)) for batch in loss.batches], loss.params)


def _judged_loss(loss: SandboxLoss, captured: CapturedBatch) -> Tensor:
    outputs, judge = loss.judged(captured)
    return judge(outputs)


def _first_then(first: Tensor, loss: SandboxLoss, captured: CapturedBatch) -> Callable[[], Tensor]:
    """A function that returns the computed outputs at its first call, and computes them again at later calls."""
    known = [first]
    return lambda: known.pop() if known else loss.judged(captured)[0]


def _on_all(trainer: Trainer, action: Callable[[], T]) -> T:
    """Run an action without collective calls; return its result if it succeeds on all processes, else raise on all."""
    error: Exception | None = None
    try:
        result = action()
    except Exception as failed:
        error = failed
    if trainer.world_size > 1:
        is_fine = trainer.strategy.reduce_boolean_decision(error is None, all=True)
        is_refused = trainer.strategy.reduce_boolean_decision(isinstance(error, RefusedError), all=False)
        if not is_fine and error is None:
            error = (
                RefusedError("Another process refused") if is_refused else LightningWWError("another process failed")
            )
    if error is not None:
        raise error
    return result


def _summed(trainer: Trainer, tensor: Tensor) -> Tensor:
    """The sum over all processes."""
    return torch.as_tensor(trainer.strategy.reduce(tensor, reduce_op="sum"))


def _num_training_samples(loader: Any) -> int | None:
    """The number of training samples, or ``None`` if it is unknown."""
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError, NotImplementedError):
        return None
