"""The reader of the curvature of a run's loss at one moment, over the batches of all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import override

from lightning_ww.callbacks._curvature.findings import Reading
from lightning_ww.callbacks._curvature.landscapes import Landscapes, functions_of
from lightning_ww.callbacks._curvature.matrices import Matrices
from lightning_ww.callbacks._curvature.ranks import on_all, reached_by_any, summed
from lightning_ww.callbacks._curvature.refusals import what_helps
from lightning_ww.callbacks._curvature.settings import Settings
from lightning_ww.callbacks._curvature.spectrum_file import SpectrumFile
from lightning_ww.callbacks._curvature.storage import fitting_storage
from lightning_ww.callbacks._curvature.tops import Tops
from lightning_ww.callbacks._monitor.run import Memory
from lightning_ww.callbacks._sandbox import sandbox
from lightning_ww.callbacks._sandbox.loss import SandboxLoss
from lightning_ww.callbacks._sandbox.training_samples import num_training_samples
from lightning_ww.curvature.density import spectral_density
from lightning_ww.curvature.edge_of_stability import EdgeOfStability, plain_ratio
from lightning_ww.curvature.ggn import Engine, GGNOperator
from lightning_ww.curvature.landscape import loss_landscape, ritz_directions
from lightning_ww.curvature.operators import HessianOperator, ReducedOperator, gradient
from lightning_ww.curvature.parameters import select_parameters
from lightning_ww.curvature.second_derivatives.context import differentiable_twice
from lightning_ww.curvature.second_derivatives.self_check import (
    check_gradient,
    check_repeated,
    check_second_derivatives,
)

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer
    from lightning_ww.callbacks._sandbox.batches import CapturedBatch

FAST_DEV_RUN_STEPS = 4
"""The number of Lanczos steps under `fast_dev_run`, which runs all of the code at low cost."""

FEW_SAMPLES = 2
"""The number of samples on which derivatives are checked in float64, which takes up to eight times as long."""


class CurvatureReader(Memory):
    """A reader of the curvature, which remembers the engine that was right and the direction of largest curvature."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.file: SpectrumFile | None = None
        self._engine: Engine = "auto"
        self._tops = Tops()
        self._is_tried = False
        self._storage = settings.storage  # a smaller one, once memory was short
        self.is_limited = False  # whether the module holds more than can be restored
        self.short_of_memory = ""  # a sentence, once it was
        self.landscapes = Landscapes(settings.landscape)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"file": None if self.file is None else self.file.state_dict()}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_tops": Tops()}  # left out: they are as large as the weights

    def read(
        self, trainer: Trainer, pl_module: LightningModule, batches: Sequence[CapturedBatch], num_steps: int
    ) -> Reading:
        """Read the spectrum by ``num_steps`` Lanczos steps, on all processes; an error on one is an error on all.

        Raises:
            RefusedError: If derivatives of this loss are wrong, or do not exist.
        """
        settings = self._settings
        most = FAST_DEV_RUN_STEPS if getattr(trainer, "fast_dev_run", False) else num_steps
        steps = min(num_steps, most)
        with self._matrices(trainer, pl_module, batches) as matrices:
            self._storage, said = fitting_storage(trainer, matrices.whole, steps, self._storage)
            self.short_of_memory = said or self.short_of_memory
            density = spectral_density(
                matrices.whole,
                num_steps=steps,
                num_probes=settings.num_probes,
                seed=settings.seed,
                storage=self._storage,
            )
            edge = EdgeOfStability.of(
                matrices.whole,
                density.sharpness,
                matrices.params,
                trainer.optimizers,
                seed=settings.seed,
                preconditioned=settings.preconditioned,
                lambda_min=density.lambda_min,
            )
            blocks, noise = matrices.blocks(settings.blocks or (), steps, settings.seed), matrices.noise(settings.seed)
            engine = "Hessian, reverse over reverse"
            if isinstance(matrices.own, GGNOperator):
                self._engine = matrices.own.engine
                engine = f"Gauss–Newton, {self._engine}"
        known = num_training_samples(trainer)
        samples = matrices.num_samples
        found = (density, edge, samples, len(batches), engine, known, self._storage, matrices.left_out, blocks, noise)
        return Reading(*found)

    def look_around(
        self, trainer: Trainer, pl_module: LightningModule, batches: Sequence[CapturedBatch], num_steps: int
    ) -> None:
        """Evaluate the loss along the curvature's own directions."""
        few = FAST_DEV_RUN_STEPS if getattr(trainer, "fast_dev_run", False) else num_steps
        with self._matrices(trainer, pl_module, batches) as matrices:
            directions = ritz_directions(matrices.whole, few, self._settings.seed)
            functions, self.landscapes.trouble = functions_of(matrices.loss, self.landscapes.validation)
            self.landscapes.add(loss_landscape(functions, matrices.own.params, directions))

    def follow(
        self, trainer: Trainer, pl_module: LightningModule, batches: Sequence[CapturedBatch]
    ) -> dict[str, float]:
        """Follow the sharpness alone, from the last directions of largest curvature."""
        with self._matrices(trainer, pl_module, batches) as matrices:
            found = self._tops.follow(matrices.whole, self._settings.seed, trainer.global_step)
            numbers = {"sharpness": found[0], "sharpness_residual": found[1]}
            if (ratio := plain_ratio(found[0], matrices.params, trainer.optimizers)) is not None:
                numbers["lr_sharpness"] = ratio
            return numbers

    @contextmanager
    def _matrices(
        self, trainer: Trainer, pl_module: LightningModule, batches: Sequence[CapturedBatch]
    ) -> Iterator[Matrices]:
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
                mode=settings.mode,
                seed=settings.seed,
            )
            loss = on_all(trainer, lambda: stack.enter_context(box))
            own, value = on_all(trainer, lambda: self._operator(loss))
            is_reached = reached_by_any(trainer, own.is_reached)
            on_all(trainer, lambda: self._restrict(loss, own, value, is_reached))
            self.is_limited |= loss.is_limited
            self._is_tried = True
            left_out = tuple(name for name, is_in in zip(loss.names, is_reached, strict=True) if not is_in)
            params, names = list(compress(params, is_reached)), list(compress(loss.names, is_reached))
            samples = loss.num_samples
            if trainer.world_size == 1:
                yield Matrices(own, own, params, left_out, samples, loss, names)
                return
            unknown = float(summed(trainer, torch.tensor(float(samples is None), device=own.device)))
            share = float(samples or 0) if not unknown else 1.0  # equal weights
            counted = float(summed(trainer, torch.tensor(share, device=own.device)))
            whole = ReducedOperator(own, lambda vector: summed(trainer, share / counted * vector))
            try:
                yield Matrices(whole, own, params, left_out, None if unknown else int(counted), loss, names)
            except ValueError:
                if whole.error is not None:
                    raise whole.error from None
                raise

    def _operator(self, loss: SandboxLoss) -> tuple[HessianOperator | GGNOperator, Tensor]:
        """The operator over this process's batches, and the loss of the first one."""
        with what_helps(self._settings.matrix):
            if self._settings.matrix == "ggn":
                with differentiable_twice():
                    return self._gauss_newton(loss)
            pairs = zip(loss.shares, loss.batches, strict=True)
            operator = HessianOperator([(share, partial(loss.of, batch)) for share, batch in pairs], loss.params)
            return operator, operator.values[0]

    def _restrict(
        self, loss: SandboxLoss, operator: HessianOperator | GGNOperator, value: Tensor, is_reached: Sequence[bool]
    ) -> None:
        """Leave parameters out; the first time, check derivatives and multiply. ``value`` is the first batch's loss."""
        with what_helps(self._settings.matrix):
            operator.restrict(is_reached)
            if self._is_tried:
                return
            if self._settings.self_check and isinstance(operator, HessianOperator):
                self._check(loss, operator, is_reached)
                return  # products were among that
            if self._settings.self_check:
                hidden = [p for p, is_in in zip(loss.params, is_reached, strict=True) if not is_in]
                with differentiable_twice():
                    slope = gradient(value, operator.params)
                check_gradient(value, slope, operator.params, hidden)
            first, is_hessian = loss.batches[0], isinstance(operator, HessianOperator)
            again = loss.of(first) if is_hessian else _judged_loss(loss, first)[0]
            check_repeated(float(value.detach()), float(again.detach()))  # whatever is asked: else the run would change
            operator @ torch.ones(operator.shape[0], dtype=operator.dtype, device=operator.device)

    def _check(self, loss: SandboxLoss, operator: HessianOperator, is_reached: Sequence[bool]) -> None:
        """Check the second derivatives on the first batch, in float64 on a few of its samples if that can be done."""
        first = loss.batches[0]
        few = None if loss.moves_others else first.first_samples(FEW_SAMPLES)
        check_second_derivatives(
            lambda: loss.of(first),
            loss.params,
            operator=operator if len(loss.batches) == 1 else None,
            kept=is_reached,
            precise=partial(loss.precisely, few or first, is_reached),
            is_part=few is not None,
            differences=not loss.moves_others,
        )

    def _gauss_newton(self, loss: SandboxLoss) -> tuple[GGNOperator, Tensor]:
        """The operator, and the loss of the first batch."""
        outputs, losses, values = [], [], []
        for share, captured in zip(loss.shares, loss.batches, strict=True):
            value, first, judge = _judged_loss(loss, captured)
            outputs.append((share, _first_then(first, loss, captured)))
            losses.append(judge)
            values.append(value)
        return GGNOperator(outputs, losses, loss.params, self._engine, check=not self._is_tried), values[0]


def _judged_loss(loss: SandboxLoss, captured: CapturedBatch) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """The loss of a batch, its outputs, and the loss as a function of outputs."""
    outputs, judge = loss.judged(captured)
    return judge(outputs), outputs, judge


def _first_then(first: Tensor, loss: SandboxLoss, captured: CapturedBatch) -> Callable[[], Tensor]:
    """A function that returns the computed outputs at its first call, and computes them again at later calls."""
    known = [first]
    return lambda: known.pop() if known else loss.judged(captured)[0]
