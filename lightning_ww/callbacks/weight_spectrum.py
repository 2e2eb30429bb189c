"""`WeightSpectrumMonitor`: the spectra of the weights, while the network trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal, cast, get_args

from typing_extensions import override

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError
from lightning_ww.callbacks._monitor.acting import OnFlag
from lightning_ww.callbacks._monitor.base import Monitor
from lightning_ww.callbacks._monitor.beside import Execution
from lightning_ww.callbacks._monitor.guard import RefusedError
from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer
from lightning_ww.callbacks._monitor.view import Chart, Histogram, View
from lightning_ww.callbacks._monitor.worker import Worker
from lightning_ww.callbacks._weights.binned_layers import BinnedLayers
from lightning_ww.callbacks._weights.initial_weights import InitialWeightsKeeper
from lightning_ww.callbacks._weights.levers import LEVERS
from lightning_ww.callbacks._weights.memory import WeightMemory
from lightning_ww.callbacks._weights.pictures import WeightPictures
from lightning_ww.callbacks._weights.snapshot import Live, Snapshot, joined, own_share
from lightning_ww.history import Moment
from lightning_ww.triggers.diagnosis import DEFAULTS
from lightning_ww.triggers.trigger import Trigger
from lightning_ww.weights.analysis import read
from lightning_ww.weights.attention import attention_heads
from lightning_ww.weights.ingredients import Request
from lightning_ww.weights.layers import Stacked, find_layers, nothing_to_measure
from lightning_ww.weights.metric import Need
from lightning_ww.weights.metrics import BANDS, KEY_METRICS, METRICS, needing
from lightning_ww.weights.plots.table import report_table
from lightning_ww.weights.report import WeightReport
from lightning_ww.weights.shuffle import Shuffler
from lightning_ww.weights.shuffled import Shuffle
from lightning_ww.weights.slices import SkippedLayer, Weight

BOOTSTRAP = 100
"""The number of draws for `alpha_bootstrap_stderr`: enough for its first digit."""


class WeightSpectrumMonitor(Monitor[Snapshot, WeightReport]):
    """Measure each layer's weight spectrum while the network trains, log it, and flag layers that look wrong.

    It measures when training starts, after each epoch's last batch and, with ``every_n_train_steps``, in between. The run is
    not changed: weights, buffers, gradients, random streams and metrics are bit-identical with and without it. It flags
    layers, but never stops training. `SpectralEarlyStopping` does, and Lightning's own ``EarlyStopping(monitor="ww/alpha")``.

    **Logged, and in** ``trainer.callback_metrics`` (with ``log_key_prefix`` before each key; means are over the measured
    layers except embeddings; a number that has no value any more keeps its last value there):

    - ``ww/alpha``: mean power-law exponent of the layers' spectra.
    - ``ww/alpha_weighted``: mean of alpha · log10 λ_max.
    - ``ww/log_norm``: mean log10 of the squared Frobenius norm.
    - ``ww/rand_distance``: mean distance of the layers' spectra from those of the same elements shuffled, 0 … 0.83.
    - ``ww/stable_rank``: mean of ‖W‖²_F/‖W‖².
    - ``ww/distance_from_init_relative``: mean of ‖W − W₀‖/‖W₀‖; W₀ is the weight at the first step of the run, or of the
      fit in which the monitor was added.
    - ``ww/sv_min``: smallest singular value of any layer.
    - ``ww/rank_deficit``: largest share of collapsed singular values of any layer.
    - ``ww/num_flagged``: number of layers with a flag.
    - ``ww/seconds``: wall time of this measurement, without writing it to loggers.
    - ``ww/overhead``: share of the fit's wall time so far that went into measuring, drawing and logging (from the second
      measurement on). ``ww/num_left_out``, with ``max_overhead``: number of measurements that were left out.

    **Logged only**:

    - ``ww/alpha_q10``, ``_q50``, ``_q90``, and likewise for rand_distance and stable_rank: quantiles over the layers.
    - ``ww.<metric>/<layer>``: each of ``metrics``, for each logged layer.
    - ``flags/<trigger>``: number of layers flagged for each of ``triggers``.
    - ``flags.<trigger>/<layer>``: 0 or 1, for each logged layer.
    - ``ww.esd/<layer>`` (histogram): log10 λ, in fixed bins. ``ww/report`` (text): the layers as a table, what their
      numbers suggest, and when flags rose and fell.
    - ``ww.maps/<metric>`` (image): the whole history of each of ``metrics``, a row for each layer. It is drawn at the first
      measurements, then twice while their number doubles, when a flag rises, and at the end. Of more than eight metrics,
      eight are drawn at a time, in turn. ``ww.spectrum/<layer>`` (image): a layer's spectrum, with its power law and its
      shuffle. It is drawn for three layers at the start, for layers that are flagged (three at a measurement, the others at
      the next measurements), and for three more at the end, flagged layers first.

    With a logger, ``events.jsonl`` in its directory has a line for each flag that rose: time, step, trigger, layer,
    evidence, meaning and lever. Loggers that take alerts (W&B, Comet) get one with each warning of flags.

    Images of all monitors together take at most a twentieth of the fit's time: those that would take more wait for a later
    measurement, or for the end of the fit, where all are drawn that are left. Numbers never wait.

    Args:
        every_n_epochs: The number of epochs from one measurement to the next; ``None``: not by epochs. Default: ``1``.
        every_n_train_steps: The number of optimizer steps from one measurement to the next, in addition. Default: ``None``,
            not by steps.
        layers: Names or shell patterns of the layers to measure. Default: ``None``, all.
        metrics: The metrics to log for each layer: names in `lightning_ww.METRICS`, or ``"all"``. If none begins with
            ``distance_from_init``, no copy of the initial weights is kept. One that begins with ``update`` compares with
            the last measurement, of which a copy of the weights is kept; a resumed fit has none at first. Default:
            `KEY_METRICS`.
        shuffle: How the shuffles' spectra are made, as in `lightning_ww.analyze`. ``"auto"`` (default) also keeps the drawn
            spectrum of a large layer for the next measurements, as long as the layer's elements are distributed so much alike
            that a new draw would differ as much (``layer.shuffle`` is ``"kept"``). ``"off"`` leaves out ``ww/rand_distance``,
            ``ww/rank_deficit`` and the flags `rank_collapse` and `correlation_trap`.
        seed: The seed of the shuffles. Default: ``0``.
        include_frozen: Whether layers without trainable parameters are measured, too. Default: ``True``.
        split: Names or patterns of weights that hold queries, keys and values together, such as ``"*.c_attn"``, each of which
            is measured as three layers, as in `lightning_ww.analyze`. Default: ``None``, none.
        stacked: Whether a stack of matrices in one weight, as of a mixture's experts, is one layer (``"pooled"``, default), or
            each of them (``"each"``).
        triggers: The triggers that flag layers: objects such as ``RankCollapse(enter=0.6)``, or your own. Default: ``None``,
            `Nonfinite`, `RankCollapse` and `CorrelationTrap` with their defaults; with ``shuffle="off"``, `Nonfinite` alone.
        execution: ``"auto"`` (default): pictures are drawn in a process beside training, in fits of more than ten seconds, if
            training leaves it a core (torch's threads and the loaders' workers count) and 2 GB of memory. ``"sync"``: in
            the process that trains. ``"background"``: the numbers are found there, too, while it is free, with
            the same digits, and are logged at the step that they belong to, but only some steps later, at the latest at the
            next measurement, checkpoint or end. So ``EarlyStopping``, ``ModelCheckpoint`` and schedules cannot watch them.
        on_flag: Your own function ``(trainer, pl_module, flags)``, called on every process with the flags that have risen at
            a measurement, a tuple of `lightning_ww.Flag`: to save a checkpoint, cut the learning rate, send a message. An
            error in it is a warning, unless ``on_error="raise"``. Default: ``None``.
        log_key_prefix: A prefix of every key, which tells two monitors apart. Default: ``""``.
        max_logged_layers: The most layers that are logged one by one; if there are more, this many are chosen evenly by
            depth. All layers are measured, and a flagged layer is logged from then on. Default: ``60``: with six metrics
            and three flags per layer, about the 500 tags that TensorBoard shows without delay.
        panels: Whether images are drawn, and TensorBoard's Custom Scalars laid out (in a separate run ``lightning-ww``, so
            that your own layout stays). The cost is in `benchmarks/panels.md`. Default: ``True``.
        max_overhead: The largest share of the fit's wall time, such as ``0.02``, that all monitors of the Trainer together may
            take with measuring, drawing and logging. A measurement that would take more is left out, but never the first one
            nor the last state; ``ww/num_left_out`` counts. Stops and checkpoints that watch a number then depend on the
            clock. Default: ``None``, numbers never depend on it; there is one warning if the share is above a quarter at the
            tenth measurement.
        figure_layers: Names or shell patterns of layers whose spectrum is drawn at the start, at the end and at every
            ``figure_every``-th measurement, instead of the three layers above. Default: ``None``.
        figure_every: The number of measurements from one drawing of those layers to the next. Default: ``10``.
        compare_tails: Whether those figures compare the tail with other distributions, by powerlaw; this takes several
            times as long. Default: ``False``.
        max_history: The most measurements kept in `history`, and so in each checkpoint. Default: ``1000``: about 8 MB for
            a hundred layers and the default metrics.
        on_error: ``"warn"`` (default): an error inside a measurement causes a warning, once per kind, and the run
            continues. ``"raise"``: the error is raised.

    Attributes:
        report: The latest `WeightReport`, or ``None``.
        history: The measurements so far; ``history.to_pandas()`` is a table of them.
        measurement: The latest measurement, or ``None``.
        diagnosis: The latest flags.

    Raises:
        ArgumentError: At construction, if an argument is out of its domain; when fitting starts, if a pattern of
            ``layers`` or ``split`` matches nothing. It is a `ValueError`.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[WeightSpectrumMonitor()], logger=False, enable_checkpointing=False)
    """

    GROUP = "ww"
    MOVES = SHARES = True
    BEGIN_ANEW = "starts a new history, and measures any `distance_from_init` from the current weights"
    IDENTITY = ("layers", "log_key_prefix")

    def __init__(
        self,
        every_n_epochs: int | None = 1,
        every_n_train_steps: int | None = None,
        *,
        layers: str | Sequence[str] | None = None,
        metrics: str | Sequence[str] = KEY_METRICS,
        shuffle: Shuffle = "auto",
        seed: int = 0,
        include_frozen: bool = True,
        split: str | Sequence[str] | None = None,
        stacked: Stacked = "pooled",
        triggers: Sequence[Trigger] | None = None,
        on_flag: OnFlag | None = None,
        log_key_prefix: str = "",
        max_logged_layers: int = 60,
        panels: bool = True,
        max_overhead: float | None = None,
        execution: Execution = "auto",
        figure_layers: str | Sequence[str] | None = None,
        figure_every: int = 10,
        compare_tails: bool = False,
        max_history: int = 1000,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        call = type(self).__name__
        self.layers = _checks.patterns(call, "layers", layers, least=1)
        self.metrics = _checks.names(call, "metrics", metrics, METRICS)
        self.shuffle = _checks.choice(call, "shuffle", shuffle, get_args(Shuffle))
        self.include_frozen = _checks.instance(call, "include_frozen", include_frozen, bool)
        self.split = _checks.patterns(call, "split", split, least=1)
        self.stacked = _checks.choice(call, "stacked", stacked, get_args(Stacked))
        self.max_logged_layers = _checks.count(call, "max_logged_layers", max_logged_layers, least=1)
        self.figure_layers = _checks.patterns(call, "figure_layers", figure_layers, least=1)
        self.figure_every = _checks.count(call, "figure_every", figure_every, least=1)
        self.compare_tails = _checks.instance(call, "compare_tails", compare_tails, bool)
        without = needing("shuffle") if shuffle == "off" else ()
        measures = [name for name in METRICS if name not in without]
        super().__init__(
            every_n_epochs,
            every_n_train_steps,
            triggers=triggers,
            defaults=DEFAULTS,
            measures=measures,
            panels=panels,
            max_overhead=max_overhead,
            execution=execution,
            on_flag=on_flag,
            log_key_prefix=log_key_prefix,
            seed=seed,
            max_history=max_history,
            on_error=on_error,
        )
        self._shuffler = Shuffler(seed)

    @property
    def _memory(self) -> WeightMemory:
        return cast(WeightMemory, self._run.memory)

    @property
    def report(self) -> WeightReport | None:
        """The latest report, or ``None``."""
        return self._own_run.findings

    @override
    def _prepare(self, trainer: Trainer, pl_module: LightningModule, state: Mapping[str, Any] | None) -> None:
        call, run = type(self).__name__, self._run
        matrices, skipped = self._find(pl_module, self.layers)
        if nothing := nothing_to_measure(pl_module, matrices, skipped):
            raise RefusedError(f"It found {nothing.removesuffix('.')}")
        if self.figure_layers is not None:
            drawn, _ = self._find(pl_module, self.figure_layers, argument="figure_layers")
            if {layer.name for layer in drawn}.isdisjoint(layer.name for layer in matrices):
                raise ArgumentError(f"`{call}(figure_layers={self.figure_layers!r})`: none of them is among `layers`.")
        memory = run.memory if isinstance(run.memory, WeightMemory) else self._new_memory()
        if memory.initial is None and self._needs("initial"):  # in a later fit, for a trigger that was added
            memory.initial = InitialWeightsKeeper()
        memory.previous.is_wanted = self._needs("previous")
        run.memory = memory
        if state is not None:
            for said in memory.load_state_dict(state):
                run.guard.warn_once(trainer, said, said)
        directory = trainer.log_dir or trainer.default_root_dir  # read on every rank, since it is broadcast
        if memory.initial is not None:
            if trainer.ckpt_path and not run.is_restored:
                said = "has no state in the checkpoint: it measures `distance_from_init` from the current weights."
                run.guard.warn_once(trainer, "checkpoint", said)
            if trouble := memory.initial.begin(state, trainer.ckpt_path, directory):
                run.guard.warn_once(trainer, "initial weights", trouble)
        # a number that this run cannot measure would keep the resumed run's last value forever
        lost = {*memory.lost(needing("initial")), *(needing("shuffle") if self.shuffle == "off" else ())}
        run.held = {name: value for name, value in run.held.items() if name not in lost}

    def _find(self, pl_module: LightningModule, layers: Sequence[str] | None, **options: Any) -> Any:
        call = type(self).__name__
        return find_layers(pl_module, layers, call=call, split=self.split, stacked=self.stacked, **options)

    def _new_memory(self) -> WeightMemory:
        pictures = WeightPictures(
            self.figure_layers, self.figure_every, compare=self.compare_tails, drawn=self._run.pictures.drawn
        )
        return WeightMemory(None, BinnedLayers(self.max_logged_layers), pictures)

    def _needs(self, need: Need) -> bool:
        """Tell whether this input is needed for a metric that is logged, or that a trigger needs."""
        return not set(self._kept_metrics).isdisjoint(needing(need))

    @override
    def _snapshot(self, trainer: Trainer, pl_module: LightningModule) -> Snapshot:
        matrices, skipped = self._find(pl_module, self.layers, strict=False)
        memory = self._memory
        memory.order = [layer.name for layer in matrices]
        copies = self._is_in_background(trainer)  # else nothing trains meanwhile
        shared: list[Weight | SkippedLayer] | None = None
        if trainer.world_size > 1:
            rank, ranks = trainer.global_rank, trainer.world_size
            shared = own_share(matrices, rank, ranks, include_frozen=self.include_frozen, copies=copies)
        elif copies:
            shared = list(read(matrices, include_frozen=self.include_frozen, copies=True))
        weights = Live(matrices, self.include_frozen) if shared is None else shared
        takes_floors = memory.floors is None and self.shuffle != "off" and not getattr(trainer, "fast_dev_run", False)
        request = Request(
            self._shuffler,
            self.shuffle,
            None if memory.initial is None else memory.initial.slices(matrices, shared or ()),
            memory.previous.then_take(matrices, shared),
            attention_heads(pl_module, matrices, copy=copies) if self._needs("attention") else None,
            mp_fit=self._needs("mp_fit"),
            cka=self._needs("cka"),
            bootstrap=BOOTSTRAP if self._needs("bootstrap") else 0,
            floors=None if takes_floors else memory.floors or {},
            kept=memory.kept,
        )
        return Snapshot(weights, skipped, request, self._levers(), memory.unchanged)

    @override
    def _joined(self, parts: Sequence[WeightReport]) -> WeightReport:
        return joined(parts, self._memory.order)

    def _levers(self) -> Mapping[Need, str]:
        """The reasons for metrics without a value in this run."""
        levers = dict(LEVERS)
        if self.shuffle == "off":
            levers["floor"] = levers["shuffle"]
        if self._memory.initial is not None and self._memory.initial.are_lost:
            levers["initial"] = "the run's initial weights were not found when it was resumed"
        return levers

    @override
    def _measure(self, snapshot: Snapshot, moment: Moment) -> WeightReport:
        return snapshot.measure()

    @override
    def _ask(self, worker: Worker, snapshot: Snapshot, moment: Moment) -> Future[tuple[WeightReport, float]]:
        return self._memory.messenger.ask(worker, snapshot)

    @override
    def _view(self, measurement: WeightReport) -> View:
        run, memory, report = self._run, self._memory, measurement
        memory.previous.keep()
        if memory.floors is None:  # the rand_distance of noise, measured only once
            floors = {layer.name: layer.rand_distance_floor for layer in report.layers}
            memory.floors = {name: floor for name, floor in floors.items() if floor is not None}
        flagged = run.diagnosis.flagged_layers
        memory.kept = {layer.name: layer.kept_shuffle for layer in report.layers if layer.kept_shuffle is not None}
        memory.logged.choose(report, flagged)
        histograms = {
            f"esd/{layer.name}": Histogram(bins.logs(layer.spectrum.eigenvalues), bins.edges)
            for layer in report.layers
            if layer.spectrum is not None and (bins := memory.logged.bins(layer.name)) is not None
        }
        risen = tuple(dict.fromkeys(flag.layer for flag in run.risen))
        is_start = run.measurement is not None and run.measurement.step == 0
        flags, stands = run.diagnosis.by_trigger, run.diagnosis.layers_from_start
        table = report_table(report, flags, run.events.lines, from_start=stands, at_start=is_start)
        bands = [Chart(name, (f"{name}_q50", f"{name}_q10", f"{name}_q90"), is_band=True) for name in self._bands()]
        return View(
            scalars={**report.quantiles, **memory.logged.scalars(report, self.metrics)},
            histograms=histograms,
            texts={"report": table},
            pictures=memory.pictures.due(run.history, report, self.metrics, flagged, risen),
            category="the weights, with bands of median and 10–90 % of the layers",
            charts=[*bands, Chart("alpha_weighted and log_norm", ("alpha_weighted", "log_norm"))],
            layers=memory.logged.names,
        )

    def _bands(self) -> list[str]:
        """The metrics whose bands are shown."""
        return [name for name in BANDS if self.shuffle != "off" or name not in needing("shuffle")]
