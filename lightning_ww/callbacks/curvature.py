"""`CurvatureMonitor`: the spectrum of the loss's curvature, while the network trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast, get_args

from torch import Tensor
from typing_extensions import override

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError
from lightning_ww._torch import plain_name
from lightning_ww.callbacks._curvature.facts import facts_of
from lightning_ww.callbacks._curvature.findings import SUMMARIES, CurvatureFindings, Reading
from lightning_ww.callbacks._curvature.landscapes import When, checked
from lightning_ww.callbacks._curvature.looking_around import LooksAround
from lightning_ww.callbacks._curvature.pictures import curvature_pictures, landscape_picture
from lightning_ww.callbacks._curvature.reading import CurvatureReader
from lightning_ww.callbacks._curvature.remarks import faster, remarks
from lightning_ww.callbacks._curvature.settings import Matrix, Settings
from lightning_ww.callbacks._curvature.spectrum_file import SpectrumFile
from lightning_ww.callbacks._monitor.acting import OnFlag
from lightning_ww.callbacks._monitor.base import Monitor
from lightning_ww.callbacks._monitor.beside import Execution
from lightning_ww.callbacks._monitor.guard import PostponedError, RefusedError
from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer
from lightning_ww.callbacks._monitor.run import Between
from lightning_ww.callbacks._monitor.sharded import refuse_sharded
from lightning_ww.callbacks._monitor.view import Chart, View
from lightning_ww.callbacks._sandbox.batches import KeptBatches
from lightning_ww.callbacks._sandbox.loss import UnfitBatchError, require_a_loss
from lightning_ww.callbacks._sandbox.mute import BatchNormMode, EvaluationMode
from lightning_ww.curvature.density import SpectralDensity
from lightning_ww.curvature.krylov import Storage
from lightning_ww.curvature.operators import NotFiniteError
from lightning_ww.curvature.parameters import select_parameters
from lightning_ww.curvature.plots.stems import spectrum_table
from lightning_ww.history import Moment
from lightning_ww.measurements import CurvatureMeasurement
from lightning_ww.triggers.trigger import Trigger

SHOWN = ("num_steps", "num_probes", "bn_mode")
"""Arguments that are listed in the table of a measurement."""


class CurvatureMonitor(LooksAround, Monitor[Reading, CurvatureFindings]):
    """Measure the spectrum of the loss's curvature while the network trains, by stochastic Lanczos quadrature.

    It measures before the first step on a batch that it keeps, and after every ``every_n_epochs``-th epoch on that batch
    again, so that changes come from the weights alone. The loss is ``loss_fn`` if given, else the module's method
    ``curvature_loss(batch)`` if it has one, else the result of `training_step`. It is evaluated on copies of the weights,
    in evaluation mode, in float32 at least and without autocast: four times before the first step, once at each later
    measurement. All other effects of `training_step` on module, optimizers, schedules, loggers, data sets and random streams
    are undone, as far as they are numbers, tensors, arrays or containers. Forward hooks of callbacks and loggers do not see
    the evaluations, and calls of the modules of W&B, MLflow, Comet, SwanLab, Trackio and TensorBoard do nothing meanwhile.
    **Not undone** is what a step does elsewhere: output that it prints or writes to files
    itself, requests that it sends, its own forward hooks' effects outside of the model, what hooks of all modules, profilers
    and counters of operations see, changes to items of containers of more than 256, and to arrays of a data set of more
    than 1 MiB. Where that matters, pass ``loss_fn``, which only computes the loss. A thread of yours that calls the module
    while it trains must call a copy of it: during a measurement it would find the module in evaluation mode, with copies of
    the weights.

    Small batches bias the sharpness upward: compare it between runs at equal ``curvature/num_samples``.

    **Logged, and in** ``trainer.callback_metrics`` (with ``log_key_prefix`` before each key; a number that has no value any
    more keeps its last value there):

    - ``curvature/sharpness``, ``curvature/lambda_min``: largest and smallest eigenvalue; ``…_residual``: an
      eigenvalue lies within this distance of the value.
    - ``curvature/trace``, ``curvature/trace_stderr``: sum of all eigenvalues, and its standard error.
    - ``curvature/negative_mass``, ``curvature/near_zero_mass``: share of the eigenvalues below zero, and close to it
      (within 1e-3 of the largest in absolute value).
    - ``curvature/num_outliers``, ``curvature/bulk_edge``, ``curvature/outlier_gap``: number of eigenvalues above the first
      gap that is nearly the widest, relatively, the largest eigenvalue below it, and the ratio of its two sides; absent
      without a clear gap.
    - ``curvature/condition``: sharpness over the median of the positive eigenvalues.
    - ``curvature/log_pseudodet``: sum of ln λ over the positive eigenvalues.
    - ``curvature/effective_dimension``, ``curvature/llc_quadratic``: Σ λ/(λ + c) with c = ln n/n for n training samples,
      and half of it; absent where n is unknown.
    - ``curvature/negative_mass_error``, ``curvature/near_zero_mass_error``, ``curvature/condition_error``,
      ``curvature/log_pseudodet_error``, ``curvature/effective_dimension_error``: the errors of these five, from fewer
      Lanczos steps and from the scatter over start vectors; they cover the exact value in nine cases of ten. A number
      whose error makes it worthless is left out, with its error; ``curvature/report`` has the reason.
    - ``curvature/num_parameters``: number of eigenvalues.
    - ``curvature/lr_sharpness``: lr·sharpness/2; 1 is the edge of stability of plain gradient descent, and of no other
      optimizer. With several learning rates it is half the largest eigenvalue of D^½HD^½, where D is their diagonal
      matrix, by 15 more products.
    - ``curvature/stability_edge``: 2/lr, if there is a single learning rate.
    - ``curvature/optimizer_sharpness``: sharpness relative to the edge of the optimizer in use; 1 is that edge. It is known
      for SGD with or without momentum; if ``optimizer_sharpness``, also for Adam, AdamW and RMSprop, by 15 more products.
    - ``curvature/gradient_norm``, ``curvature/gradient_variance``, ``curvature/covariance_top``, with ``num_batches`` above 1
      and ``matrix="hessian"``: norm of the mean gradient of the batches, and trace and largest eigenvalue of the
      covariance of theirs; under DDP those of the first process. ``curvature/gradient_noise_scale``: the batch size, in
      samples, at which noise is as large as the gradient; absent where the gradient cannot be told from noise.
      ``curvature/hessian_variance``: Σ‖H_b − H̄‖²_F/(B − 1) over the B batches, by one random vector. ``curvature/tic``:
      trace of the covariance of single samples' gradients over the Hessian's trace.
    - ``curvature/num_samples``: number of samples that were measured on, those of all processes.
      ``curvature/batch_size``: their mean number in a batch.
    - ``curvature/seconds``, ``curvature/overhead``: wall time of this measurement, without writing it to loggers; share of
      the fit's wall time so far that went into measuring, drawing and logging (from the second measurement on).
      ``curvature/num_left_out``, with ``max_overhead``: number of measurements that were left out.

    - ``curvature/num_flagged``, if there are ``triggers``: 1 if one of them flags the model, else 0.

    **Logged only**:

    - ``flags/<trigger>``: 1 if the trigger flags the model, else 0.
    - ``curvature.top_eigenvalues/1`` … ``5``: the largest eigenvalues, if they have converged.
    - ``curvature.sharpness/<block>``, ``curvature.trace/<block>``, with ``blocks``: largest eigenvalue and trace of the
      diagonal block.
    - ``curvature/spectrum`` (image): nodes and weights as stems. ``curvature.maps/spectrum`` (image): all spectra so far, a
      column for each measurement. It is drawn at the first measurements, then twice while their number doubles, and at the
      end. Images take at most a twentieth of the fit's time, as in `WeightSpectrumMonitor`.
    - ``curvature/landscape`` (image), with ``landscape``: losses and accuracies along directions.
    - ``curvature/report`` (text): the
      settings of the measurement, and the largest eigenvalues with their residuals.

    With a logger, ``curvature.jsonl`` in its directory has a line for each measurement, nodes and weights included;
    ``events.jsonl`` has one for each flag that rose, as in `WeightSpectrumMonitor`.

    Args:
        every_n_epochs: The number of epochs from one measurement to the next; ``None``: not by epochs. Default: ``5``.
        every_n_train_steps: The number of optimizer steps from one measurement to the next, in addition. Default: ``None``,
            not by steps.
        matrix: ``"hessian"`` (default), or ``"ggn"``, the generalized Gauss–Newton matrix, which is cheaper and has no
            negative eigenvalues. It needs the outputs that enter the loss: from ``ggn_fn``, else from the module's
            ``curvature_outputs(batch)``, else from the single call of ``F.cross_entropy``, ``F.mse_loss`` or
            ``F.binary_cross_entropy_with_logits``.
        num_steps: The number of Lanczos steps, each of which costs two to three gradients, with an LSTM ten. Default:
            ``30``, which reaches both ends of a network's spectrum (Granziol et al., 2019).
        num_probes: The number of random start vectors. Default: ``1``.
        num_batches: The number of batches to measure on. If there are several, the first ones of training are kept, and
            the first measurement follows the last of them. Default: ``1``.
        data: Batches to measure on instead, such as a `DataLoader`; it is iterated once. Default: ``None``, batches of
            training.
        loss_fn: The loss, a function ``(pl_module, batch) -> 0-d tensor``. Default: ``None``, the module's own loss.
        ggn_fn: A function ``(pl_module, batch) -> (outputs, loss_of_outputs)`` for ``matrix="ggn"``. Default: ``None``.
        params: Names or shell patterns of the parameters to differentiate with respect to. Default: ``None``, all that
            require gradients.
        bn_mode: Whether batch normalization uses its running statistics (``"eval"``, default) or the batch's
            (``"train"``): the spectra differ.
        mode: ``"train"`` measures in training mode, for models that have a loss in no other, apart from dropout layers and
            batch normalization. Default: ``"eval"``.
        batch_size_fn: A function ``batch -> int`` that tells the number of samples of a batch, by which batches are
            weighted. Default: ``None``, the length of its tensors; if these disagree, batches have equal weights.
        optimizer_sharpness: Whether to measure ``curvature/optimizer_sharpness`` even if it takes more products.
            Default: ``False``.
        sharpness_every_n_steps: The number of optimizer steps from one measurement of the sharpness alone to the next,
            between spectra. Each starts from the last directions of largest curvature, and takes six products, or eighteen
            if these have changed. Default: ``None``, never.
        storage: The storage of the Krylov basis, which has ``num_steps`` times the size of the parameters: ``"full"``
            (default), ``"half"`` in 16 bits, or ``"none"``. A basis that would take more than half of the memory left is
            kept in the next form, with one warning. With ``"none"``, outliers are not counted, and only the largest
            eigenvalue is given.
        self_check: Whether to check, once, that second derivatives are those of the loss: a plain backward pass must give
            the same gradient, products must be symmetric, and on two samples, in float64, they must equal differences of
            gradients. It costs at most ten gradients if a batch has at least eight samples (`benchmarks/hessians.md`).
            Default: ``True``.
        landscape: Whether to evaluate the loss along the two largest, the smallest and the closest to zero of the
            curvature's own (Ritz) vectors, up to a distance of 1: on the batches that are kept, and the same loss on the first
            validation batch, with accuracies where it is one `F.cross_entropy` of labels. ``"end"``: at the end of the fit; a
            number: every so many measurements. It takes ``num_steps`` products, and 84 evaluations of each of the two.
            Default: ``None``, never.
        blocks: Names or shell patterns of parameters, one for each diagonal block whose spectrum is measured, too:
            ``["encoder.*", "head.*"]``. Each takes as many products as the whole. Default: ``None``, none.
        triggers: Triggers that flag measurements: `Sharpness`, or your own. Default: ``()``, none.
        on_flag: Your own function ``(trainer, pl_module, flags)``, called when flags rise, as in `WeightSpectrumMonitor`.
            Default: ``None``.
        panels: Whether images are drawn and TensorBoard's Custom Scalars laid out, as in `WeightSpectrumMonitor`. Default:
            ``True``.
        max_overhead: The largest share of the fit's wall time, such as ``0.02``, that all monitors of the Trainer together may
            take with measuring, drawing and logging. A measurement that would take more is left out, but never the first one
            nor the last state; ``curvature/num_left_out`` counts. Stops and checkpoints that watch a number then depend on the
            clock. Default: ``None``, numbers never depend on it; there is one warning if the share is above a quarter at the
            tenth measurement.
        execution: ``"auto"`` (default): pictures are drawn in a process beside training, in fits of more than ten seconds, if
            training leaves it a core (torch's threads and the loaders' workers count) and 2 GB of memory. ``"sync"``: in
            the process that trains. ``"background"``: as ``"auto"``; the curvature itself needs the model, and is measured
            where it is.
        log_key_prefix: A prefix of every key, which tells two monitors apart. Default: ``""``.
        seed: The seed of the start vectors. Default: ``0``.
        max_history: The most measurements kept in `history`, and so in each checkpoint. Default: ``1000``.
        on_error: ``"warn"`` (default): an error inside a measurement causes a warning, once per kind, and the run
            continues. ``"raise"``: the error is raised.

    Attributes:
        density: The latest `SpectralDensity`, or ``None``.
        loss_landscape: The latest `Landscape` of ``landscape=``, or ``None``; ``.to_pandas()`` is a table of its values.
        history: The measurements so far, nodes and weights included; ``history.to_pandas()`` is a table of them.
        measurement: The latest measurement, or ``None``.

    Raises:
        ArgumentError: At construction, if an argument is out of its domain; before the first step, if a pattern of
            ``params`` matches nothing, or ``data`` has too few batches. It is a `ValueError`. A model or a loss that cannot
            be measured is one warning.

    References:
        Granziol et al. (2019), Deep Curvature Suite, arXiv:1912.09656. Cohen et al. (2021), Gradient descent on neural
        networks typically occurs at the edge of stability, arXiv:2103.00065.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[CurvatureMonitor(every_n_epochs=5)], logger=False, enable_checkpointing=False)
    """

    GROUP = "curvature"
    KEPT = CurvatureMeasurement
    IDENTITY = ("matrix", "params", "log_key_prefix")

    def __init__(
        self,
        every_n_epochs: int | None = 5,
        every_n_train_steps: int | None = None,
        *,
        matrix: Matrix = "hessian",
        num_steps: int = 30,
        num_probes: int = 1,
        num_batches: int = 1,
        data: Iterable[Any] | None = None,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        ggn_fn: Callable[[Any, Any], tuple[Tensor, Callable[[Tensor], Tensor]]] | None = None,
        params: str | Sequence[str] | None = None,
        bn_mode: BatchNormMode = "eval",
        mode: EvaluationMode = "eval",
        batch_size_fn: Callable[[Any], int] | None = None,
        optimizer_sharpness: bool = False,
        sharpness_every_n_steps: int | None = None,
        storage: Storage = "full",
        self_check: bool = True,
        landscape: When = None,
        blocks: str | Sequence[str] | None = None,
        triggers: Sequence[Trigger] = (),
        on_flag: OnFlag | None = None,
        panels: bool = True,
        max_overhead: float | None = None,
        execution: Execution = "auto",
        log_key_prefix: str = "",
        seed: int = 0,
        max_history: int = 1000,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        call = type(self).__name__
        self.matrix = _checks.choice(call, "matrix", matrix, get_args(Matrix))
        self.num_steps = _checks.count(call, "num_steps", num_steps, least=1)
        self.num_probes = _checks.count(call, "num_probes", num_probes, least=1)
        self.num_batches = _checks.count(call, "num_batches", num_batches, least=1)
        self.data = _checks.having(call, "data", data, "__iter__", "batches, such as a `DataLoader`")
        self.loss_fn = _checks.having(call, "loss_fn", loss_fn, "__call__", "a function `(pl_module, batch) -> loss`")
        self.ggn_fn = _checks.having(
            call, "ggn_fn", ggn_fn, "__call__", "a function `(pl_module, batch) -> (outputs, loss_of_outputs)`"
        )
        self.params = _checks.patterns(call, "params", params, least=1)
        self.bn_mode = _checks.choice(call, "bn_mode", bn_mode, get_args(BatchNormMode))
        self.mode = _checks.choice(call, "mode", mode, get_args(EvaluationMode))
        self.batch_size_fn = _checks.having(
            call, "batch_size_fn", batch_size_fn, "__call__", "a function `batch -> int`"
        )
        self.optimizer_sharpness = _checks.instance(call, "optimizer_sharpness", optimizer_sharpness, bool)
        self.sharpness_every_n_steps = _checks.optional_count(
            call, "sharpness_every_n_steps", sharpness_every_n_steps, least=1
        )
        self.storage = _checks.choice(call, "storage", storage, get_args(Storage))
        self.self_check = _checks.instance(call, "self_check", self_check, bool)
        self.landscape = checked(call, landscape)
        self.blocks = _checks.patterns(call, "blocks", blocks, least=1)
        super().__init__(
            every_n_epochs,
            every_n_train_steps,
            triggers=triggers,
            defaults=(),
            measures=SUMMARIES,
            panels=panels,
            max_overhead=max_overhead,
            execution=execution,
            on_flag=on_flag,
            log_key_prefix=log_key_prefix,
            seed=seed,
            max_history=max_history,
            on_error=on_error,
        )

    @property
    def density(self) -> SpectralDensity | None:
        """The latest spectral density, or ``None``."""
        found = self._own_run.findings
        return None if found is None else found.density

    @override
    def _prepare(self, trainer: Trainer, pl_module: LightningModule, state: Mapping[str, Any] | None) -> None:
        call, run = type(self).__name__, self._run
        if self.ggn_fn is not None and self.matrix != "ggn":
            raise ArgumentError(
                f'`{call}(ggn_fn=...)` is of use with `matrix="ggn"` only, but `matrix` is {self.matrix!r}.'
            )
        own_outputs = callable(getattr(pl_module, "curvature_outputs", None)) and self.matrix == "ggn"
        require_a_loss(pl_module, self.loss_fn, has_outputs=self.ggn_fn is not None or own_outputs)
        directory = trainer.log_dir  # read on every rank, since it is broadcast
        refuse_sharded(pl_module, type(trainer.strategy))
        if not any(parameter.requires_grad for parameter in pl_module.parameters()):
            raise RefusedError(f"No parameter of this {type(pl_module).__name__} requires a gradient")
        chosen = select_parameters(pl_module, self.params, call=call)
        for pattern in self.blocks or ():
            _checks.matching(call, "blocks", pattern, list(chosen), "trainable parameter", plain=plain_name)
        if not isinstance(run.memory, CurvatureReader):
            run.memory = CurvatureReader(self._settings)
        if self._reader.file is None:
            self._reader.file = SpectrumFile(directory, self.log_key_prefix, (state or {}).get("file"))
        if run.batches is None:
            run.batches = KeptBatches(call, self.num_batches, self.data, self.seed, self.batch_size_fn)
        if self.sharpness_every_n_steps is not None:
            run.between = Between("follow the sharpness", self.sharpness_every_n_steps, self._sharpness)

    @property
    def _reader(self) -> CurvatureReader:
        return cast(CurvatureReader, self._run.memory)

    @property
    def _batches(self) -> KeptBatches:
        return cast(KeptBatches, self._run.batches)

    @property
    def _settings(self) -> Settings:
        return Settings(
            self.matrix,
            self.params,
            self.loss_fn,
            self.ggn_fn,
            self.bn_mode,
            self.mode,
            self.num_probes,
            self.seed,
            self.storage,
            self.self_check,
            self.optimizer_sharpness,
            self.landscape,
            self.blocks,
        )

    @override
    def _snapshot(self, trainer: Trainer, pl_module: LightningModule) -> Reading:
        """Read the curvature here rather than in `_measure`, since products need the module, with copies of its weights."""
        batches, reader = self._batches, self._reader
        is_tried_out = not batches.is_complete  # some batches are missing: one step, to find errors early
        num_steps = 1 if is_tried_out else self.num_steps
        reading = self._read_or_drop(trainer, pl_module, num_steps)
        known = self.measurement
        before = known.density.dim if isinstance(known, CurvatureMeasurement) else None
        for cause, said in remarks(reading, pl_module, batches.unfit, reader.is_limited, trainer.global_step, before):
            self._run.guard.warn_once(trainer, cause, said)
        if said := reader.short_of_memory:
            self._run.guard.warn_once(trainer, said, said)
        if not is_tried_out:
            self._look_around(trainer, pl_module, self.history.next_number)
        return reading

    def _read_or_drop(self, trainer: Trainer, pl_module: LightningModule, num_steps: int) -> Reading:
        """Read the curvature; before the first measurement, leave out a batch that is unfit, on all processes or none."""
        batches, failed = self._batches, None
        try:
            reading = self._reader.read(trainer, pl_module, batches.batches, num_steps)
        except Exception as error:
            failed = error
        is_unfit = self.measurement is None and isinstance(failed, UnfitBatchError | NotFiniteError)
        if trainer.strategy.reduce_boolean_decision(is_unfit, all=True):
            batches.drop(str(failed), getattr(failed, "captured", None))
            batches.give_up()
            raise PostponedError(str(failed)) from failed
        if failed is not None:
            raise failed
        return reading

    @override
    def _measure(self, snapshot: Reading, moment: Moment) -> CurvatureFindings:
        return CurvatureFindings(snapshot)

    @override
    def _view(self, measurement: CurvatureFindings) -> View:
        latest, reading, file = cast(CurvatureMeasurement, self.measurement), measurement.reading, self._reader.file
        facts = facts_of(measurement, {name: getattr(self, name) for name in SHOWN})
        pictures = curvature_pictures(self.matrix, latest, self.history)
        if (landscape := self._reader.landscapes.shown()) is not None:
            pictures.append(landscape_picture(landscape))
        return View(
            scalars=measurement.scalars,
            texts={"report": spectrum_table(reading.density, facts)},
            pictures=pictures,
            category="the loss's curvature",
            charts=[Chart("sharpness, and its edge 2/lr", ("sharpness", "stability_edge"))],
            files={str(file): partial(file.append, latest)} if file is not None and file.is_wanted else {},
        )

    @override
    def _faster(self, trainer: Trainer) -> list[str]:
        return faster(self, trainer.lightning_module)

    def _sharpness(self, trainer: Trainer, pl_module: LightningModule) -> Mapping[str, float]:
        return self._reader.follow(trainer, pl_module, self._batches.batches)
