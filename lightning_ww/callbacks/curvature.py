"""`CurvatureMonitor`: the spectrum of the loss's curvature, while the network trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from torch import Tensor
from typing_extensions import override

from lightning_ww import _checks
from lightning_ww.callbacks._curvature import reading as _curvature_run
from lightning_ww.callbacks._curvature import spectrum_file as _curvature_summary
from lightning_ww.callbacks._curvature.pictures import CurvaturePanels
from lightning_ww.callbacks._curvature.reading import CurvatureFound, CurvatureRun, Matrix, RefusedError
from lightning_ww.callbacks._monitor import loggers as _publish
from lightning_ww.callbacks._monitor.base import MonitorBase
from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer, inform, warn
from lightning_ww.callbacks._monitor.schedule import logged_step
from lightning_ww.callbacks._sandbox.batches import KeptBatches, TooFewBatchesError
from lightning_ww.callbacks._sandbox.loss import UnsuitableLossError, require_a_loss
from lightning_ww.callbacks._sandbox.mute import BatchNormMode
from lightning_ww.curvature.krylov import Storage
from lightning_ww.curvature.parameters import select_parameters
from lightning_ww.history import CurvatureMeasurement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightning_ww.curvature.density import SpectralDensity

T = TypeVar("T")


class CurvatureMonitor(MonitorBase[CurvatureMeasurement]):
    """Measure the spectrum of the loss's curvature while the network trains, by stochastic Lanczos quadrature.

    It measures before the first step, on a batch that it keeps, and then after every ``every_n_epochs``-th epoch, on the
    same batch: the curve moves because the weights did. The loss is ``loss_fn`` if given, else the module's method
    ``curvature_loss(batch)`` if it has one, else what `training_step` returns. It is evaluated on copies of the weights,
    in evaluation mode, in float32 at least and without autocast; whatever `training_step` does besides leaves no trace in
    module, optimisers, loggers or random streams. (Forward hooks run, being part of it; what they do elsewhere stays.)
    Small batches bias the sharpness upwards: compare it between runs at equal ``curvature/batch_size``.

    **Logged, and in** ``trainer.callback_metrics`` (``log_key_prefix`` before each; where one has no value any more, the
    last one stands there):

    - ``curvature/sharpness``, ``curvature/lambda_min``: largest and least eigenvalue; ``…_residual``: an eigenvalue lies
      within this of it.
    - ``curvature/trace``, ``curvature/trace_stderr``: of all eigenvalues, and its standard error.
    - ``curvature/negative_mass``, ``curvature/near_zero_mass``: share of the eigenvalues below zero, and close to it
      (within 1e-3 of the largest in absolute value).
    - ``curvature/num_outliers``, ``curvature/bulk_edge``: eigenvalues above the widest relative gap, and the one below it.
    - ``curvature/condition``: sharpness over the median of the positive ones.
    - ``curvature/log_pseudodet``: sum of ln λ over the positive ones.
    - ``curvature/effective_dimension``, ``curvature/llc_quadratic``: Σ λ/(λ + c), c = ln n/n, over n training samples, and
      half of it; absent where n is unknown.
    - ``curvature/lr_sharpness``: lr·sharpness/2; 1 is the edge of stability of plain gradient descent, and of no other
      optimiser. With several learning rates half the largest eigenvalue of D^½HD^½, by 15 more products.
    - ``curvature/stability_edge``: 2/lr, with one learning rate.
    - ``curvature/optimizer_sharpness``: the same for the optimiser in use; 1 is its own edge. SGD with or without
      momentum; Adam, AdamW and RMSprop, by 15 more products, if ``optimizer_sharpness``.
    - ``curvature/batch_size``: samples that are measured on, of all processes.
    - ``curvature/seconds``, ``curvature/overhead``: wall time of this measurement, without writing it to loggers; share of
      the fit's wall time spent measuring and logging (from the second measurement on).

    **Logged only**:

    - ``curvature.top_eigenvalues/1`` … ``5``: the largest ones, where they have converged.
    - ``curvature/spectrum`` (image): nodes and weights as stems. ``curvature.maps/spectrum`` (image): all so far, one
      measurement a column; after the thirty-second it is drawn anew whenever a sixteenth has been added, and at the end.
      ``curvature/report`` (text): how it was measured, and the largest eigenvalues with their residuals.

    With a logger, ``curvature.jsonl`` in its directory has a line for each measurement, nodes and weights included.

    Args:
        every_n_epochs: Measure after every so many epochs; ``None``: not by epochs. Default: ``5``.
        every_n_train_steps: Measure after every so many optimiser steps, too. Default: ``None``, not by steps.
        matrix: ``"hessian"`` (default), or ``"ggn"``, the generalised Gauss–Newton matrix: cheaper, no negative
            eigenvalues. It needs the outputs that the loss judges: ``ggn_fn``, or the module's ``curvature_outputs(batch)``,
            else the one call of ``F.cross_entropy``, ``F.mse_loss`` or ``F.binary_cross_entropy_with_logits`` is seen.
        num_steps: Lanczos steps, each a product of two to three gradients' cost. Default: ``30``, which reaches both ends
            of a network's spectrum (Granziol et al., 2019).
        num_probes: Random start vectors. Default: ``1``.
        num_batches: Batches to measure on. More than one are taken as they pass, and the first measurement follows.
            Default: ``1``.
        data: Batches to measure on instead, such as a `DataLoader`; it is iterated once. Default: ``None``.
        loss_fn: ``(pl_module, batch) -> 0-d tensor``. Default: ``None``.
        ggn_fn: ``(pl_module, batch) -> (outputs, loss_of_outputs)``. Default: ``None``.
        params: Names or shell patterns of the parameters to differentiate by. Default: ``None``, all that require gradients.
        bn_mode: Whether batch normalisation uses its running statistics (``"eval"``, default) or the batch's
            (``"train"``): the spectra differ.
        optimizer_sharpness: Whether to measure ``curvature/optimizer_sharpness`` also where it takes more products.
            Default: ``False``.
        sharpness_every_n_steps: Between spectra, follow the sharpness alone after every so many optimiser steps, from where
            it was the last time (three products, or more where it has moved). Default: ``None``, not.
        storage: Of the Krylov basis, ``num_steps`` times the parameters: ``"full"`` (default), ``"half"`` in 16 bits, or
            ``"none"``, for models whose basis does not fit: then outliers are not counted, and only the largest eigenvalue
            is given.
        self_check: Whether to hold second derivatives against the loss itself, once, for about eight gradients.
            Default: ``True``.
        panels: Whether images are drawn and TensorBoard's Custom Scalars laid out, as in `WeightSpectrumMonitor`. Default:
            ``True``.
        log_key_prefix: Put before every key, to tell two monitors apart. Default: ``""``.
        seed: Of the start vectors. Default: ``0``.
        max_history: Measurements kept in `history`, and so in each checkpoint. Default: ``1000``.
        on_error: An error inside a measurement warns once per kind and lets the run go on (``"warn"``, the default), or is
            raised (``"raise"``).

    Attributes:
        density: The latest `SpectralDensity`, or ``None``.
        history: The measurements so far, nodes and weights included; ``history.to_pandas()`` is a table of them.
        measurement: The latest of them, or ``None``.

    Raises:
        ValueError: In construction, if an argument is out of its domain; before the first step, if no loss can be had as
            asked, or a pattern of ``params`` matches nothing.

    References:
        Granziol et al. (2019), Deep Curvature Suite, arXiv:1912.09656. Cohen et al. (2021), Gradient descent on neural
        networks typically occurs at the edge of stability, arXiv:2103.00065.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[CurvatureMonitor(every_n_epochs=5)], logger=False, enable_checkpointing=False)
    """

    GROUP = "curvature"
    RECORD = CurvatureMeasurement

    def __init__(
        self,
        every_n_epochs: int | None = 5,
        every_n_train_steps: int | None = None,
        matrix: Matrix = "hessian",
        num_steps: int = 30,
        num_probes: int = 1,
        num_batches: int = 1,
        data: Iterable[Any] | None = None,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        ggn_fn: Callable[[Any, Any], tuple[Tensor, Callable[[Tensor], Tensor]]] | None = None,
        params: str | Sequence[str] | None = None,
        bn_mode: BatchNormMode = "eval",
        optimizer_sharpness: bool = False,
        sharpness_every_n_steps: int | None = None,
        storage: Storage = "full",
        self_check: bool = True,
        panels: bool = True,
        log_key_prefix: str = "",
        seed: int = 0,
        max_history: int = 1000,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        super().__init__(every_n_epochs, every_n_train_steps, seed, log_key_prefix, max_history, on_error)
        call = type(self).__name__
        self.matrix = _checks.choice(call, "matrix", matrix, get_args(Matrix))
        self.num_steps = _checks.count(call, "num_steps", num_steps, least=1)
        self.num_probes = _checks.count(call, "num_probes", num_probes, least=1)
        self.num_batches = _checks.count(call, "num_batches", num_batches, least=1)
        self.data = _checks.having(call, "data", data, "__iter__", "batches, such as a `DataLoader`,")
        self.loss_fn = _checks.having(call, "loss_fn", loss_fn, "__call__", "a function `(pl_module, batch) -> loss`")
        self.ggn_fn = _checks.having(
            call, "ggn_fn", ggn_fn, "__call__", "a function `(pl_module, batch) -> (outputs, loss_of_outputs)`"
        )
        self.params = _checks.patterns(call, "params", params, least=1)
        self.bn_mode = _checks.choice(call, "bn_mode", bn_mode, get_args(BatchNormMode))
        self.optimizer_sharpness = _checks.instance(call, "optimizer_sharpness", optimizer_sharpness, bool)
        self.sharpness_every_n_steps = sharpness_every_n_steps
        if sharpness_every_n_steps is not None:
            _checks.count(call, "sharpness_every_n_steps", sharpness_every_n_steps, least=1)
        self.storage = _checks.choice(call, "storage", storage, get_args(Storage))
        self.self_check = _checks.instance(call, "self_check", self_check, bool)
        self.panels = _checks.instance(call, "panels", panels, bool)
        self._reset()

    @override
    def _reset(self) -> None:
        super()._reset()
        self.density: SpectralDensity | None = None
        self._is_off, self._is_first, self._last_followed = False, True, 0
        self._panels = CurvaturePanels(self.matrix)
        self._file = _curvature_summary.JsonLines(None, "")
        self._epoch_began = self._spent_before = 0.0
        self._batches = KeptBatches(self.num_batches, self.data, self.seed)
        how = self.matrix, self.params, self.loss_fn, self.ggn_fn, self.bn_mode, self.seed, self.storage
        self._run = CurvatureRun(*how, self_check=self.self_check, preconditioned=self.optimizer_sharpness)

    @override
    def _prepare(self, trainer: Trainer, pl_module: LightningModule, state: Mapping[str, Any] | None) -> None:
        call = type(self).__name__
        self._is_first = True
        self._fatal = (UnsuitableLossError, TooFewBatchesError)  # before the first step nothing is lost by an error
        require_a_loss(pl_module, self.loss_fn, self.ggn_fn, self.matrix, call)
        # the directory is asked for on every rank: it is broadcast
        self._file = _curvature_summary.JsonLines(trainer.log_dir, self.log_key_prefix)
        self._is_off = type(trainer.strategy).__name__ in _curvature_run.SHARDED
        if self._is_off:
            warn(
                trainer,
                f"`{call}` measures nothing: {_curvature_run.NO_PARAMETERS.format(type(trainer.strategy).__name__)}",
            )
            return
        select_parameters(pl_module, self.params, call=call)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_began, self._spent_before = time.perf_counter(), self._spent

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        is_first, self._is_first = self._is_first, False
        if self._batches.is_complete or self._is_off or getattr(trainer, "barebones", False):
            self._fatal = ()
            return
        take = partial(self._batches.take, trainer, pl_module, batch, batch_idx)
        self._guard.run(trainer, take, "take a batch", self._fatal)
        if self.data is not None:  # what could not be drawn on one process is measured on none
            self._is_off = not trainer.strategy.reduce_boolean_decision(self._batches.is_complete, all=True)
        if is_first and self.data is None and len(self.history):
            inform(
                trainer, f"`CurvatureMonitor` resumes on new batches: curves may jump at step {trainer.global_step}."
            )
        if self._batches.is_complete:
            self._measure(trainer, pl_module, is_baseline=is_first)
        elif is_first and self._batches.batches:  # what cannot be measured is to be known before the first step
            try_out = partial(self._run.try_out, trainer, pl_module, self._batches.batches)
            self._guard.run(trainer, lambda: self._unless_refused(trainer, try_out), fatal=self._fatal)
        self._fatal = ()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch and (few := self._batches.close()):
            self._guard.warn_once(trainer, "num_batches", few)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        n, step = self.sharpness_every_n_steps, trainer.global_step
        if n is None or self._is_off or not self._batches.is_complete or step == self._last_step:
            return
        if step // n != self._last_followed // n:
            self._follow(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if few := self._batches.close():  # an epoch cut short
            self._guard.warn_once(trainer, "num_batches", few)
        super().on_train_epoch_end(trainer, pl_module)
        training = time.perf_counter() - self._epoch_began - (self._spent - self._spent_before)
        if slow := _curvature_summary.slow(self.measurement, trainer.current_epoch, training, vars(self)):
            self._guard.warn_once(trainer, "slow", slow)

    @override
    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, *, is_baseline: bool = False, after_epoch: bool = False
    ) -> None:
        if self._batches.is_complete and not self._is_off:
            super()._measure(trainer, pl_module, is_baseline=is_baseline, after_epoch=after_epoch)

    @override
    def _analyse(
        self, trainer: Trainer, pl_module: LightningModule, *, is_baseline: bool
    ) -> tuple[CurvatureFound, dict[str, float]] | None:
        most = _curvature_run.FAST_DEV_RUN_STEPS if getattr(trainer, "fast_dev_run", False) else self.num_steps
        num_steps = min(self.num_steps, most)
        how = trainer, pl_module, self._batches.batches, num_steps, self.num_probes
        found = self._unless_refused(trainer, partial(self._run.measure, *how))
        if found is None:
            return None
        samples = _curvature_summary.num_training_samples(trainer.train_dataloader)
        return found, _curvature_summary.summary(found, samples)

    def _unless_refused(self, trainer: Trainer, action: Callable[[], T]) -> T | None:
        """What an action returns; a refusal is said once, and is for good."""
        try:
            return action()
        except RefusedError as error:
            self._is_off = True
            if self.on_error == "raise":
                raise
            self._guard.warn_once(trainer, "refused", f"cannot measure in this run, and stops trying. {error}.")
            return None

    @override
    def _keep(
        self, trainer: Trainer, found: CurvatureFound, summary: Mapping[str, float], *, is_baseline: bool, step: int
    ) -> None:
        self.density = found.density
        when = self.history.next_number, trainer.global_step, trainer.current_epoch, is_baseline
        self.measurement = CurvatureMeasurement(*when, dict(summary), found.density, found.engine)
        self.history.append(self.measurement)
        if trainer.is_global_zero and trainer.loggers:
            file = self._file if self.history[-1] is self.measurement else None
            _curvature_summary.publish(trainer, self, self._guard, found, self.measurement, step, file)
            due = partial(self._panels.due, self.measurement, self.history, is_baseline=is_baseline)
            self._show(trainer, due, step)

    @override
    def _last_pictures(self) -> Mapping[str, Callable[[], Any]]:
        return self._panels.last(self.history)

    def _follow(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish the sharpness between two spectra."""
        self._last_followed = trainer.global_step
        with self._timed():
            follow = partial(self._run.follow, trainer, pl_module, self._batches.batches)
            found = self._guard.run(trainer, lambda: self._unless_refused(trainer, follow), "follow the sharpness")
            if trainer.strategy.reduce_boolean_decision(found is not None, all=True) and found is not None:
                self._held |= (found := trainer.strategy.broadcast(found))
                _publish.to_callback_metrics(trainer, self._prefixed(found))
                if trainer.is_global_zero:
                    _publish.to_loggers(trainer, self._guard, logged_step(trainer), self._prefixed(found))

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(matrix=self.matrix, params=self.params, log_key_prefix=self.log_key_prefix)

    def __getstate__(self) -> dict[str, Any]:
        """Without the batches, which are the run's."""
        return {**super().__getstate__(), "_batches": KeptBatches(self.num_batches, self.data, self.seed)}
