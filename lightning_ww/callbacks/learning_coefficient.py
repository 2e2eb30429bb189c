"""`LearningCoefficientMonitor`: the local learning coefficient of the loss, at the end of training and in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from typing_extensions import override

from lightning_ww import _checks
from lightning_ww.callbacks._monitor.base import Monitor
from lightning_ww.callbacks._monitor.beside import Execution
from lightning_ww.callbacks._monitor.guard import RefusedError
from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer
from lightning_ww.callbacks._monitor.schedule import Schedule
from lightning_ww.callbacks._monitor.sharded import refuse_sharded
from lightning_ww.callbacks._monitor.view import Chart, Picture, View
from lightning_ww.callbacks._sandbox import sandbox
from lightning_ww.callbacks._sandbox.batches import CapturedBatch, KeptBatches
from lightning_ww.callbacks._sandbox.loss import SandboxLoss, UnfitBatchError, require_a_loss
from lightning_ww.callbacks._sandbox.mute import EvaluationMode
from lightning_ww.curvature.coefficient import LearningCoefficient, joined
from lightning_ww.curvature.parameters import select_parameters
from lightning_ww.curvature.plots.chains import chains_figure
from lightning_ww.curvature.singular_learning import Sampling, sampled
from lightning_ww.drawing.canvas import picture
from lightning_ww.drawing.markdown import markdown
from lightning_ww.history import Moment

FEW = 2
"""The draws of each chain under `fast_dev_run`, which runs all of the code at low cost."""


class LearningCoefficientFindings:
    """An estimate, and the numbers that are logged of it."""

    layers = ()
    skipped = ()

    def __init__(self, found: LearningCoefficient) -> None:
        self.found = found
        values = {
            "llc": found.value,
            "llc_stderr": found.stderr,
            "llc_drift": found.drift,
            "llc_valid": float(found.is_valid),
            "llc_quadratic": found.quadratic,
            "loss": found.loss,
            "step_size": found.step_size,
            "localization": found.localization,
            "n_beta": found.n_beta,
            "num_samples": float(found.num_samples),
        }
        finite = {name: torch.tensor(value).item() for name, value in values.items() if value is not None}
        self.summary: Mapping[str, float] = {name: value for name, value in finite.items() if value - value == 0}


class LearningCoefficientMonitor(Monitor[LearningCoefficient, LearningCoefficientFindings]):
    """Estimate the local learning coefficient of the loss at the end of training, by Langevin chains around the weights.

    It measures the complexity of the minimum that training has found: half the number of parameters for a regular one, less
    for a singular one. Chains move copies of the weights; the run is not changed. They take
    ``num_chains · (num_burnin + num_draws)`` gradients, and one chain more with 80 Hessian products or more to find the step;
    the gradients of all batches at the weights are kept meanwhile. It means something only near a minimum of the data that
    chains draw from, so pass the training data as ``data=``, with the number of their batches: of the few batches that are
    kept by default, the weights of a large data set are no minimum. It depends on γ and on the length of the chains: to
    compare runs, set ``localization=``, and compare where ``slt/llc_valid`` is 1. No trigger acts on it.

    The loss, the batches and all that is undone after an evaluation are as in `CurvatureMonitor`.

    **Logged, and in** ``trainer.callback_metrics`` (with ``log_key_prefix`` before each key):

    - ``slt/llc``: the estimate, nβ(E[L(w)] − L(w*)).
    - ``slt/llc_stderr``: its standard error over chains, if there are several.
    - ``slt/llc_drift``: mean of the second half of the draws minus that of the first.
    - ``slt/llc_valid``: 1, or 0 if it is not to be believed; ``slt/report`` has the reason.
    - ``slt/llc_quadratic``: what a quadratic loss with the measured curvature would have, ½ Σ λ/(λ + γ/nβ), if its error
      allows; with this γ, while ``curvature/llc_quadratic`` has γ = 1 and n of all training data.
    - ``slt/loss``: loss at the weights, over all batches that are kept.
    - ``slt/step_size``, ``slt/localization``, ``slt/n_beta``, ``slt/num_samples``: ε, γ, nβ and n.
    - ``slt/seconds``, ``slt/overhead``: wall time of the measurement; share of the fit's wall time so far that went into
      measuring, drawing and logging. ``slt/num_left_out``, with ``max_overhead``: number of measurements that were left out.

    **Logged only**: ``slt/chains`` (image): the draws of the chains and their running means. ``slt/report`` (text).

    Args:
        every_n_epochs: The number of epochs from one measurement to the next. Default: ``None``, only at the end of the fit,
            where it always measures.
        num_chains: The number of chains; over several processes, each runs its share, and at least one. Default: ``4``.
        num_draws: The steps of each chain that count. Default: ``200``.
        num_burnin: The steps before them, which do not. Default: ``200``.
        step_size: ε. Default: ``None``, from the curvature, as in `lightning_ww.curvature.learning_coefficient`.
        localization: γ. Default: ``None``, 1, or 2nβ|λ_min| if that is more.
        num_samples: The number n of samples, for nβ = n/ln n. Default: ``None``, those in the batches that chains draw from.
        num_batches: The number of batches of training that are kept, and that chains draw from. Default: ``8``.
        data: Batches to draw from instead, such as a `DataLoader`; it is iterated once. Default: ``None``.
        loss_fn: The loss, a function ``(pl_module, batch) -> 0-d tensor``. Default: ``None``, the module's own loss.
        params: Names or shell patterns of the parameters that chains move. Default: ``None``, all that require gradients.
        mode: ``"train"`` for models that have a loss in no other mode, as in `CurvatureMonitor`. Default: ``"eval"``.
        panels: Whether the image is drawn and TensorBoard's Custom Scalars laid out, as in `WeightSpectrumMonitor`. Default:
            ``True``.
        max_overhead: The largest share of the fit's wall time that all monitors of the Trainer together may take, as in
            `WeightSpectrumMonitor`; the end of the fit is measured nevertheless. Default: ``None``.
        execution: Where pictures are drawn, as in `CurvatureMonitor`. Default: ``"auto"``.
        log_key_prefix: A prefix of every key, which tells two monitors apart. Default: ``""``.
        seed: The seed of the chains. Default: ``0``.
        max_history: The most measurements kept in `history`. Default: ``1000``.
        on_error: ``"warn"`` (default): an error inside a measurement causes a warning, once per kind, and the run
            continues. ``"raise"``: the error is raised.

    Attributes:
        found: The latest `LearningCoefficient`, or ``None``.
        history: The measurements so far; ``history.to_pandas()`` is a table of them.
        measurement: The latest measurement, or ``None``.

    Raises:
        ArgumentError: At construction, if an argument is out of its domain; before the first step, if a pattern of
            ``params`` matches nothing, or ``data`` has too few batches. It is a `ValueError`. A model or a loss that cannot
            be measured is one warning.

    References:
        Lau et al. (2025), The local learning coefficient: a singularity-aware complexity measure, AISTATS, arXiv:2308.12108.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[LearningCoefficientMonitor()], logger=False, enable_checkpointing=False)
    """

    GROUP = "slt"
    HAS_BASELINE = False
    THERE = ()
    SHARES = True
    IDENTITY = ("params", "log_key_prefix")

    def __init__(
        self,
        every_n_epochs: int | None = None,
        *,
        num_chains: int = 4,
        num_draws: int = 200,
        num_burnin: int = 200,
        step_size: float | None = None,
        localization: float | None = None,
        num_samples: int | None = None,
        num_batches: int = 8,
        data: Iterable[Any] | None = None,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        params: str | Sequence[str] | None = None,
        mode: EvaluationMode = "eval",
        panels: bool = True,
        max_overhead: float | None = None,
        execution: Execution = "auto",
        log_key_prefix: str = "",
        seed: int = 0,
        max_history: int = 1000,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        call = type(self).__name__
        self.num_samples = _checks.optional_count(call, "num_samples", num_samples, least=2)
        how = Sampling(2, num_chains, num_draws, num_burnin, step_size, localization, None, seed, call)
        self.num_chains, self.num_draws, self.num_burnin = how.num_chains, how.num_draws, how.num_burnin
        self.step_size, self.localization = how.step_size, how.localization
        self.num_batches = _checks.count(call, "num_batches", num_batches, least=1)
        self.data = _checks.having(call, "data", data, "__iter__", "batches, such as a `DataLoader`")
        self.loss_fn = _checks.having(call, "loss_fn", loss_fn, "__call__", "a function `(pl_module, batch) -> loss`")
        self.params = _checks.patterns(call, "params", params, least=1)
        self.mode = _checks.choice(call, "mode", mode, get_args(EvaluationMode))
        super().__init__(
            every_n_epochs if every_n_epochs is not None else 1,
            None,
            triggers=(),
            defaults=(),
            measures=(),
            panels=panels,
            max_overhead=max_overhead,
            execution=execution,
            log_key_prefix=log_key_prefix,
            seed=seed,
            max_history=max_history,
            on_error=on_error,
        )
        self._schedule = Schedule(every_n_epochs, None)  # the end of the fit is not on it
        self.every_n_epochs = every_n_epochs

    @property
    def found(self) -> LearningCoefficient | None:
        """The latest estimate, or ``None``."""
        latest = self._own_run.findings
        return None if latest is None else latest.found

    @property
    def _batches(self) -> KeptBatches:
        return cast(KeptBatches, self._run.batches)

    @override
    def _prepare(self, trainer: Trainer, pl_module: LightningModule, state: Mapping[str, Any] | None) -> None:
        call, run = type(self).__name__, self._run
        require_a_loss(pl_module, self.loss_fn, has_outputs=False)
        refuse_sharded(pl_module, type(trainer.strategy), "the learning coefficient")
        if not any(parameter.requires_grad for parameter in pl_module.parameters()):
            raise RefusedError(f"No parameter of this {type(pl_module).__name__} requires a gradient")
        select_parameters(pl_module, self.params, call=call)
        if run.batches is None:
            run.batches = KeptBatches(call, self.num_batches, self.data, self.seed, None)

    @override
    def _try_out(self, trainer: Trainer, pl_module: LightningModule) -> object:
        self._count()
        with self._losses(trainer, pl_module) as loss, suppress(UnfitBatchError):  # another batch may do
            loss.of(loss.batches[0])
        return None

    @contextmanager
    def _losses(self, trainer: Trainer, pl_module: LightningModule) -> Iterator[SandboxLoss]:
        batches = self._batches.batches
        with sandbox(
            trainer, pl_module, batches, params=self.params, loss_fn=self.loss_fn, mode=self.mode, seed=self.seed
        ) as loss:
            yield loss

    def _count(self) -> int:
        """The number of samples."""
        sizes = [batch.size for batch in self._batches.batches]
        samples = self.num_samples or (None if None in sizes else sum(size or 0 for size in sizes))
        if samples is None:
            raise RefusedError("The number of samples in these batches is not known. Pass `num_samples=`")
        return max(2, samples)

    @override
    def _snapshot(self, trainer: Trainer, pl_module: LightningModule) -> LearningCoefficient:
        """Run this process's chains here rather than in `_measure`, since they need the module."""
        rank, ranks = trainer.global_rank, trainer.world_size
        is_short = getattr(trainer, "fast_dev_run", False)
        samples = self._count()
        how = Sampling(
            samples,
            max(1, len(range(rank, self.num_chains, ranks))),
            FEW if is_short else self.num_draws,
            min(self.num_burnin, FEW) if is_short else self.num_burnin,
            self.step_size,
            self.localization,
            None,
            self.seed * ranks + rank,
            type(self).__name__,
        )
        with self._losses(trainer, pl_module) as loss:
            fit, why = _fit(loss)
            if why:
                said = f"leaves out {len(loss.batches) - len(fit)} of {len(loss.batches)} batches. Of the first: {why}"
                self._run.guard.warn_once(trainer, "unfit batch", said)
            pairs = [(share, partial(_of, loss, batch)) for share, batch in fit]
            return sampled(pairs, loss.params, how)

    @override
    def _measure(self, snapshot: LearningCoefficient, moment: Moment) -> LearningCoefficientFindings:
        return LearningCoefficientFindings(snapshot)

    @override
    def _joined(self, parts: Sequence[LearningCoefficientFindings]) -> LearningCoefficientFindings:
        return LearningCoefficientFindings(joined([part.found for part in parts]))

    @override
    def _is_left_out(self, trainer: Trainer) -> bool:
        last = self._run.measurement
        return last is None or last.step != trainer.global_step

    @override
    def _faster(self, trainer: Trainer) -> list[str]:
        return [f"lower `num_chains` ({self.num_chains}), `num_draws` ({self.num_draws}) or `num_burnin`"]

    @override
    def _view(self, measurement: LearningCoefficientFindings) -> View:
        found = measurement.found
        rows = [[name, f"{value:.4g}"] for name, value in measurement.summary.items()]
        rows += [["valid", "yes" if found.is_valid else f"no: {found.reason}"]]
        rows += [["chains", ", ".join(f"{value:.4g}" for value in found.chains)]]
        return View(
            texts={"report": markdown(["number", "value"], rows)},
            pictures=[Picture("chains", partial(_drawn, found))],
            category="the learning coefficient",
            charts=[Chart("learning coefficient, and its quadratic approximation", ("llc", "llc_quadratic"))],
        )


def _fit(loss: SandboxLoss) -> tuple[list[tuple[float, CapturedBatch]], str]:
    """The batches with a loss, each with its share, and why the first of the others has none.

    Raises:
        RefusedError: If there is none.
    """
    fit, why = [], ""
    for share, batch in zip(loss.shares, loss.batches, strict=True):
        try:
            loss.of(batch)
        except UnfitBatchError as error:
            why = why or str(error)
        else:
            fit.append((share, batch))
    if not fit:
        raise RefusedError(f"No batch could be measured. Of the first: {why.removesuffix('.')}")
    return fit, why


def _of(loss: SandboxLoss, batch: CapturedBatch) -> Tensor:
    """The loss of a batch, NaN where a chain has gone where there is none."""
    try:
        return loss.of(batch)
    except UnfitBatchError:
        return torch.stack([parameter.sum() for parameter in loss.params]).sum() * float("nan")


def _drawn(found: LearningCoefficient) -> Any:
    return picture(lambda: chains_figure(found))
