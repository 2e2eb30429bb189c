"""`GradientMonitor`: the gradients of each layer at the optimizer's steps, while the network trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

from typing_extensions import override

from lightning_ww import _checks
from lightning_ww.callbacks._gradients.memory import GradientMemory
from lightning_ww.callbacks._gradients.scaling import scale_of
from lightning_ww.callbacks._gradients.table import gradient_table
from lightning_ww.callbacks._monitor.acting import OnFlag
from lightning_ww.callbacks._monitor.base import Monitor
from lightning_ww.callbacks._monitor.beside import Execution
from lightning_ww.callbacks._monitor.guard import RefusedError
from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer
from lightning_ww.callbacks._monitor.logged_layers import LoggedLayers
from lightning_ww.callbacks._monitor.maps import Maps
from lightning_ww.callbacks._monitor.pictures import is_redrawn
from lightning_ww.callbacks._monitor.sharded import refuse_sharded
from lightning_ww.callbacks._monitor.view import Chart, Picture, View
from lightning_ww.gradients.layers import layers_of
from lightning_ww.gradients.metrics import GRADIENT_METRICS, KEY_GRADIENT_METRICS
from lightning_ww.gradients.reader import GradientReader
from lightning_ww.gradients.report import SUMMARIES, GradientReport
from lightning_ww.history import Moment
from lightning_ww.triggers.exploding_gradients import ExplodingGradients
from lightning_ww.triggers.trigger import Trigger
from lightning_ww.triggers.vanishing_gradients import VanishingGradients

SCALES = {name: metric.scale for name, metric in GRADIENT_METRICS.items()}
"""The colors of each number's map."""


class GradientMonitor(Monitor[GradientReport, GradientReport]):
    """Measure each layer's gradient at the optimizer's steps, log it, and flag gradients that vanish or explode over depth.

    At each step it takes the norms of the gradients, on their device and without waiting for it. After each epoch's last
    batch and, with ``every_n_train_steps``, in between it reports the last step, and the highest norms since the last
    report. Gradients are those before Lightning clips them, without the scale of mixed precision (also with fused
    optimizers), after accumulation and after the reduction over processes; those that a module clips by hand before its
    step are seen clipped. Several optimizers that step at one batch make one step. A layer is a module with parameters of its
    own, weight and bias together; numbers of the whole are those of all layers that are measured. Before a step that is to
    be reported, the parameters are copied, on their device, to find the update. The run is not changed.

    **Logged, and in** ``trainer.callback_metrics`` (with ``log_key_prefix`` before each key; from the first step on, but for
    the weights', which are there at the start, too; a number that has no value any more keeps its last value there):

    - ``gradients/norm``: norm of the whole gradient at the last step, if it is finite.
    - ``gradients/highest_norm``: largest finite one since the last report.
    - ``gradients/num_nonfinite_steps``: steps since then whose gradient, or its norm in float32, was not finite. Mixed
      precision in float16 has some.
    - ``gradients/clip_factor``: norm right after the step over the norm before: 1 without clipping. Absent where the step
      deletes its gradients.
    - ``gradients/update_ratio``: ‖Δw‖/‖w‖ of the last step, w after it; about 1e-3 is usual.
    - ``gradients/zero_share``, ``gradients/nonfinite_share``: shares of the gradient's elements that are exactly zero, and
      NaN or infinite.
    - ``gradients/weight_norm``, ``gradients/weight_max``: L2 norm of all trained parameters, and their largest magnitude.
    - ``gradients/num_flagged``: number of layers with a flag.
    - ``gradients/seconds``, ``gradients/overhead``: wall time of this report; share of the fit's wall time so far that went
      into measuring, drawing and logging, the part of each step included. ``gradients/num_left_out``, with
      ``max_overhead``: number of reports that were left out.

    **Logged only**:

    - ``gradients.<metric>/<layer>``, for each of ``metrics``.
    - ``flags/<trigger>``, ``flags.<trigger>/<layer>``: number of flagged layers, and 0 or 1 for each layer.
    - ``gradients.maps/<metric>`` (image): all layers over all reports. ``gradients/report`` (text): all layers with all
      numbers, the reasons for missing ones, and the events.

    With a logger, ``events.jsonl`` in its directory has a line for each flag that rose, as in `WeightSpectrumMonitor`.

    Args:
        every_n_epochs: The number of epochs from one report to the next; ``None``: not by epochs. Default: ``1``.
        every_n_train_steps: The number of optimizer steps from one report to the next, in addition. Default: ``None``, not
            by steps.
        layers: Names or shell patterns of the layers to measure. Default: ``None``, all that are trained.
        metrics: The numbers to log for each layer: names in `lightning_ww.gradients.GRADIENT_METRICS`, or ``"all"``. Default:
            ``("norm", "update_ratio")``.
        triggers: The triggers that flag layers. Default: ``None``, `VanishingGradients` and `ExplodingGradients` with their
            defaults.
        on_flag: Your own function ``(trainer, pl_module, flags)``, called when flags rise, as in `WeightSpectrumMonitor`.
            Default: ``None``.
        log_key_prefix: A prefix of every key, which tells two monitors apart. Default: ``""``.
        max_logged_layers: The most layers that are logged one by one; if there are more, this many are chosen evenly by
            depth. Default: ``60``.
        panels: Whether images are drawn and TensorBoard's Custom Scalars laid out, as in `WeightSpectrumMonitor`. Default:
            ``True``.
        max_overhead: The largest share of the fit's wall time that all monitors of the Trainer together may take, as in
            `WeightSpectrumMonitor`. Default: ``None``.
        execution: ``"auto"`` (default) or ``"background"``: pictures are drawn in a process beside training, as in
            `WeightSpectrumMonitor`. ``"sync"``: in the process that trains.
        max_history: The most reports kept in `history`, and so in each checkpoint. Default: ``1000``.
        on_error: ``"warn"`` (default): an error inside a measurement causes a warning, once per kind, and the run
            continues. ``"raise"``: the error is raised.

    Attributes:
        report: The latest `GradientReport`, or ``None``.
        history: The reports so far; ``history.to_pandas()`` is a table of them.
        measurement: The latest measurement, or ``None``.
        diagnosis: The latest flags.

    Raises:
        ArgumentError: At construction, if an argument is out of its domain; when fitting starts, if a pattern of
            ``layers`` matches nothing. It is a `ValueError`. Sharded parameters, of which no process has the whole
            gradient, are one warning.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[GradientMonitor()], logger=False, enable_checkpointing=False)
    """

    GROUP = "gradients"
    THERE = ("weight_norm", "weight_max", "num_flagged", "seconds")
    IDENTITY = ("layers", "log_key_prefix")

    def __init__(
        self,
        every_n_epochs: int | None = 1,
        every_n_train_steps: int | None = None,
        *,
        layers: str | Sequence[str] | None = None,
        metrics: str | Sequence[str] = KEY_GRADIENT_METRICS,
        triggers: Sequence[Trigger] | None = None,
        on_flag: OnFlag | None = None,
        log_key_prefix: str = "",
        max_logged_layers: int = 60,
        panels: bool = True,
        max_overhead: float | None = None,
        execution: Execution = "auto",
        max_history: int = 1000,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        call = type(self).__name__
        self.layers = _checks.patterns(call, "layers", layers, least=1)
        self.metrics = _checks.names(call, "metrics", metrics, tuple(GRADIENT_METRICS))
        self.max_logged_layers = _checks.count(call, "max_logged_layers", max_logged_layers, least=1)
        super().__init__(
            every_n_epochs,
            every_n_train_steps,
            triggers=triggers,
            defaults=(VanishingGradients(), ExplodingGradients()),
            measures=(*GRADIENT_METRICS, *SUMMARIES),
            panels=panels,
            max_overhead=max_overhead,
            execution=execution,
            on_flag=on_flag,
            log_key_prefix=log_key_prefix,
            seed=0,
            max_history=max_history,
            on_error=on_error,
        )

    @property
    def report(self) -> GradientReport | None:
        """The latest report, or ``None``."""
        return self._own_run.findings

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if isinstance(self._run.memory, GradientMemory) and not self._run.is_off:
            self._memory.num_batches += 1
            with self._run.clock.spending():
                look = partial(self._look, pl_module, is_new_epoch=batch_idx == 0)
                self._run.guard.run(trainer, look, "look at the layers")

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        run = self._run
        if run.is_off or not isinstance(run.memory, GradientMemory) or run.memory.reader is None:
            return
        with run.clock.spending():
            run.guard.run(trainer, partial(self._observe, trainer, run.memory.reader, optimizer), "read the gradients")

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove_hooks()
        super().on_exception(trainer, pl_module, exception)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._remove_hooks()
        super().teardown(trainer, pl_module, stage)

    def _look(self, pl_module: LightningModule, *, is_new_epoch: bool) -> None:
        """Look at the layers anew in each epoch, and learn their order from backward passes."""
        memory = self._memory
        if is_new_epoch or memory.reader is None:
            found, skipped = layers_of(pl_module, self.layers, strict=False)
            if memory.reader is None or found != memory.reader.layers:  # some have come, or gone, or are frozen now
                self._remove_hooks()
                memory.reader = GradientReader(found, skipped)
        memory.reader.record_order()

    def _remove_hooks(self) -> None:
        if isinstance(self._run.memory, GradientMemory):
            self._run.memory.remove_hooks()

    def _observe(self, trainer: Trainer, reader: GradientReader, optimizer: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        is_close = self._schedule.may_be_due(trainer, self._run.last_step)
        number = self._memory.num_batches
        reader.observe(parameters, step=number, scale=scale_of(trainer, optimizer), closely=is_close)
        if is_close:
            finish = partial(self._run.guard.run, trainer, partial(reader.finish, parameters), "read the update")
            self._memory.after_step(optimizer, finish)

    @property
    def _memory(self) -> GradientMemory:
        return cast(GradientMemory, self._run.memory)

    @override
    def _prepare(self, trainer: Trainer, pl_module: LightningModule, state: Mapping[str, Any] | None) -> None:
        run = self._run
        refuse_sharded(pl_module, type(trainer.strategy), "the gradients")
        found, skipped = layers_of(pl_module, self.layers, call=type(self).__name__)
        if not found:
            raise RefusedError(f"No parameter of this {type(pl_module).__name__} requires a gradient")
        if not isinstance(run.memory, GradientMemory):
            run.memory = GradientMemory(None, LoggedLayers(self.max_logged_layers))
        run.memory.reader = GradientReader(found, skipped)
        if state is not None:
            for said in run.memory.load_state_dict(state):
                run.guard.warn_once(trainer, said, said)

    @override
    def _snapshot(self, trainer: Trainer, pl_module: LightningModule) -> GradientReport:
        reader = self._memory.reader
        assert reader is not None
        self._memory.finish()
        return reader.collect()

    @override
    def _measure(self, snapshot: GradientReport, moment: Moment) -> GradientReport:
        return snapshot

    @override
    def _view(self, measurement: GradientReport) -> View:
        run, logged = self._run, self._memory.logged
        logged.choose(measurement, run.diagnosis.flagged_layers)
        return View(
            scalars=logged.scalars(measurement, self.metrics),
            texts={"report": gradient_table(measurement, run.diagnosis.by_trigger, run.events.lines)},
            pictures=self._maps(),
            category="the gradients",
            charts=[
                Chart("norm of the gradient", ("norm", "highest_norm")),
                Chart("update over weight", ("update_ratio",)),
                Chart("clip factor", ("clip_factor",)),
            ],
            layers=logged.names,
        )

    def _maps(self) -> list[Picture]:
        """A map for each number, once there is a step."""
        history = self._run.history
        past = [one for one in history if not one.is_baseline]
        if not past:
            return []
        is_due = bool(self._run.risen) or is_redrawn(history[-1].number, len(history))
        draw = Maps(past, SCALES)
        return [Picture(f"maps/{name}", partial(draw, name), "now" if is_due else "end") for name in self.metrics]
