"""`WeightSpectrumMonitor`: the spectra of the weights, while the network trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from typing_extensions import override

from lightning_ww import _checks
from lightning_ww.callbacks._monitor import loggers as _publish
from lightning_ww.callbacks._monitor.base import MonitorBase
from lightning_ww.callbacks._monitor.events import Events
from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer, warn
from lightning_ww.callbacks._weights.initial_weights import InitialWeightsKeeper
from lightning_ww.callbacks._weights.logged_layers import LoggedLayers
from lightning_ww.callbacks._weights.pictures import WeightPanels
from lightning_ww.history import Measurement, record
from lightning_ww.triggers.diagnosis import TRIGGERS, Diagnosis, FlagThresholds, TriggerName, diagnose
from lightning_ww.weights.analysis import measure
from lightning_ww.weights.ingredients import Request, Shuffle
from lightning_ww.weights.layers import find_layers, require_a_matrix
from lightning_ww.weights.metrics import BANDS, KEY_METRICS, METRICS, Need, needing
from lightning_ww.weights.plots.table import report_table
from lightning_ww.weights.report import WeightReport
from lightning_ww.weights.shuffle import Shuffler

UNEXPECTED = ("failed", "meta", "sharded", "quantised", "uninitialised", "unsupported_shape", "unsupported_dtype")
"""Reasons for skipping a layer of which a user is told; the others (norms, biases, ties …) stand in the report."""

LEVERS: Mapping[Need, str] = {
    "mp_fit": "not asked for (name it in `metrics=`)",
    "floor": "measured at a run's first measurement only, and not without shuffles",
    "cka": "not asked for (name it in `metrics=`)",
    "initial": "no initial weights are kept (name a `distance_from_init` in `metrics=`)",
    "shuffle": "not asked for (`shuffle='off'`)",
}
"""Why a number was not made, and which argument of the monitor makes it."""


class WeightSpectrumMonitor(MonitorBase[Measurement]):
    """Measure each layer's weight spectrum while the network trains, log it, and flag what looks wrong.

    It measures when training starts, after each epoch's last batch and, if asked, every so many optimiser steps. The run is
    only read: weights, buffers, gradients, random streams and metrics are bit-identical with and without it. It flags and
    never stops; `SpectralEarlyStopping` stops, and so does Lightning's own ``EarlyStopping(monitor="ww/alpha")``.

    **Logged, and in** ``trainer.callback_metrics`` (``log_key_prefix`` before each; means are over the measured layers but
    embeddings; where a mean has no value any more, the last one stands):

    - ``ww/alpha``: mean power-law exponent of the layers' spectra.
    - ``ww/alpha_weighted``: mean of alpha · log10 λ_max.
    - ``ww/log_norm``: mean log10 of the squared Frobenius norm.
    - ``ww/rand_distance``: mean distance of the layers' spectra from those of the same elements shuffled, 0 … 0.83.
    - ``ww/stable_rank``: mean of ‖W‖²_F/‖W‖².
    - ``ww/distance_from_init_relative``: mean of ‖W − W₀‖/‖W₀‖; W₀ is the weight at the first step
      of the run, or of the fit in which the monitor joined it.
    - ``ww/sv_min``: least singular value of any layer.
    - ``ww/rank_deficit``: largest share of collapsed singular values of any layer.
    - ``ww/num_flagged``: layers with a flag.
    - ``ww/seconds``: wall time of this measurement, without writing it to loggers.
    - ``ww/overhead``: share of the fit's wall time spent measuring and logging (from the second measurement on).

    **Logged only**:

    - ``ww/alpha_q10``, ``_q50``, ``_q90``, and so for rand_distance and stable_rank: quantiles over the layers.
    - ``ww.<metric>/<layer>``: each metric of ``metrics``, of each logged layer.
    - ``flags/<trigger>``: how many layers are flagged for `nonfinite`, `rank_collapse`, `correlation_trap`.
    - ``flags.<trigger>/<layer>``: 0 or 1, of each logged layer.
    - ``ww.esd/<layer>`` (histogram): log10 λ, in bins that stay as they are. ``ww/report`` (text): the layers as a table,
      what their numbers suggest, and which flags rose and fell when.
    - ``ww.maps/<metric>`` (image): the whole history, a row for each layer, of each metric of ``metrics``. Drawn anew
      at each measurement, after the thirty-second whenever a sixteenth has been added, when a flag rises, and at the end;
      of more than eight metrics eight at a time, in turn.
      ``ww.spectrum/<layer>`` (image): one layer's spectrum, with its power law and its shuffle; of three layers at the
      start, of a layer that is flagged (of more than three at once the others at the next measurements), and at the end
      of three more, the flagged ones first.

    Args:
        every_n_epochs: Measure after every so many epochs; ``None``: not by epochs. Default: ``1``.
        every_n_train_steps: Measure after every so many optimiser steps, too. Default: ``None``, not by steps.
        layers: Names or shell patterns of the layers to measure. Default: ``None``, all.
        metrics: What is logged for each layer: names among `lightning_ww.METRICS`, or ``"all"``. Without any that begins
            with ``distance_from_init`` no copy of the initial weights is kept. Default: `KEY_METRICS`.
        shuffle: How the shuffled spectra are had, as in `lightning_ww.analyze`. ``"off"`` leaves out ``ww/rand_distance``,
            ``ww/rank_deficit`` and the flags `rank_collapse` and `correlation_trap`. Default: ``"auto"``.
        seed: Of the shuffles. Default: ``0``.
        include_frozen: Whether layers without anything to train are measured too. Default: ``True``.
        thresholds: When a flag rises and falls. Default: ``None``, `FlagThresholds()`.
        log_key_prefix: Put before every key, to tell two monitors apart. Default: ``""``.
        max_logged_layers: Of more layers than this, so many, evenly by depth, are logged one by one (all are measured, and
            a layer that is flagged joins for good). Default: ``60``: with five metrics and three flags a layer, about the
            500 tags that TensorBoard shows without delay.
        panels: Whether images are drawn, and TensorBoard's Custom Scalars laid out (in a run ``lightning-ww`` of its own, so
            that your layout stays). What it costs: `benchmarks/panels.md`. Default: ``True``.
        figure_layers: Names or shell patterns of layers whose spectrum is drawn at the start, at the end and at every
            ``figure_every``-th measurement, instead of the three. Default: ``None``.
        figure_every: Measurements from one drawing of those layers to the next. Default: ``10``.
        compare_tails: Whether those figures say how well other distributions describe the tail, by powerlaw; it
            takes several times as long. Default: ``False``.
        max_history: Measurements kept in `history`, and so in each checkpoint. Default: ``1000``: 4 MB for a hundred
            layers and five metrics.
        on_error: An error inside a measurement warns once per kind and lets the run go on (``"warn"``, the default), or is
            raised (``"raise"``).

    Attributes:
        report: The latest `WeightReport`, or ``None``.
        history: The measurements so far; ``history.to_pandas()`` is a table of them.
        measurement: The latest of them, or ``None``.
        diagnosis: The latest flags.

    Raises:
        ValueError: In construction, if an argument is out of its domain; when fitting starts, if the model holds no weight
            matrix or a pattern of ``layers`` matches none.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> trainer = Trainer(callbacks=[WeightSpectrumMonitor()], logger=False, enable_checkpointing=False)
    """

    GROUP = "ww"
    RECORD = Measurement

    def __init__(
        self,
        every_n_epochs: int | None = 1,
        every_n_train_steps: int | None = None,
        layers: str | Sequence[str] | None = None,
        metrics: str | Sequence[str] = KEY_METRICS,
        shuffle: Shuffle = "auto",
        seed: int = 0,
        include_frozen: bool = True,
        thresholds: FlagThresholds | None = None,
        log_key_prefix: str = "",
        max_logged_layers: int = 60,
        panels: bool = True,
        figure_layers: str | Sequence[str] | None = None,
        figure_every: int = 10,
        compare_tails: bool = False,
        max_history: int = 1000,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        super().__init__(every_n_epochs, every_n_train_steps, seed, log_key_prefix, max_history, on_error)
        call = type(self).__name__
        self.layers = _checks.patterns(call, "layers", layers)
        self.metrics = _checks.names(call, "metrics", metrics, METRICS)
        self.shuffle = _checks.choice(call, "shuffle", shuffle, get_args(Shuffle))
        self.include_frozen = _checks.instance(call, "include_frozen", include_frozen, bool)
        self.thresholds = _checks.instance(call, "thresholds", thresholds or FlagThresholds(), FlagThresholds)
        self.max_logged_layers = _checks.count(call, "max_logged_layers", max_logged_layers, least=1)
        self.panels = _checks.instance(call, "panels", panels, bool)
        self.figure_layers = _checks.patterns(call, "figure_layers", figure_layers, least=1)
        self.figure_every = _checks.count(call, "figure_every", figure_every, least=1)
        self.compare_tails = _checks.instance(call, "compare_tails", compare_tails, bool)
        self._shuffler = Shuffler(seed)
        self._reset()

    @override
    def _reset(self) -> None:
        super()._reset()
        self.report: WeightReport | None = None
        self.diagnosis = Diagnosis()
        keeps_initial = not set(needing("initial")).isdisjoint(self.metrics)
        self._initial = InitialWeightsKeeper() if keeps_initial else None
        self._logged = LoggedLayers(self.max_logged_layers)
        self._panels = WeightPanels(self.figure_layers, self.figure_every, compare=self.compare_tails)
        self._events = Events()
        self._floors: dict[str, float] | None = None  # not measured yet

    @property
    def triggers(self) -> tuple[TriggerName, ...]:
        """The triggers that this monitor can flag; two of them need the shuffled spectra."""
        return TRIGGERS if self.shuffle != "off" else ("nonfinite",)

    @override
    def _bands(self) -> tuple[str, ...]:
        return tuple(name for name in BANDS if self.shuffle != "off" or name != "rand_distance")

    @override
    def _prepare(self, trainer: Trainer, pl_module: LightningModule, state: Mapping[str, Any] | None) -> None:
        call = type(self).__name__
        found, skipped = find_layers(pl_module, self.layers, call=call)
        require_a_matrix(pl_module, found, skipped, call)
        if self.figure_layers is not None:
            drawn, _ = find_layers(pl_module, self.figure_layers, call=call, argument="figure_layers")
            if {one.name for one in drawn}.isdisjoint(one.name for one in found):
                raise ValueError(f"`{call}(figure_layers={self.figure_layers!r})`: none of them is among `layers`.")
        directory = trainer.log_dir or trainer.default_root_dir  # asked for on every rank: it is broadcast
        if self._initial is not None and trainer.ckpt_path and (state is None or not state["history"]):
            warn(
                trainer, f"`{call}` finds nothing of its own in the checkpoint: `distance_from_init` counts from here."
            )
        if self._initial is not None and (trouble := self._initial.begin(state, trainer.ckpt_path, directory)):
            warn(trainer, f"`{call}` {trouble}")
        # what this run cannot measure would be held for ever at the resumed run's last value
        lost = [] if self._initial is not None and not self._initial.are_lost else ["distance_from_init_relative"]
        lost += ["rand_distance", "rank_deficit"] if self.shuffle == "off" else []
        self._held = {key: value for key, value in self._held.items() if key.removeprefix("ww/") not in lost}

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._measure(trainer, pl_module, is_baseline=True)

    @override
    def _analyse(
        self, trainer: Trainer, pl_module: LightningModule, *, is_baseline: bool
    ) -> tuple[tuple[WeightReport, Diagnosis], dict[str, float]]:
        takes_floors = self._floors is None and self.shuffle != "off" and not getattr(trainer, "fast_dev_run", False)
        found, skipped = find_layers(pl_module, self.layers, call=type(self).__name__, strict=False)
        request = Request(
            self._shuffler,
            self.shuffle,
            None if self._initial is None else self._initial.slices(found),
            mp_fit=not set(needing("mp_fit")).isdisjoint(self.metrics),
            cka=not set(needing("cka")).isdisjoint(self.metrics),
            floors=None if takes_floors else self._floors or {},
        )
        report = measure(found, skipped, request, include_frozen=self.include_frozen, levers=LEVERS)
        if takes_floors:  # at the first measurement only: what noise of these shapes reads
            floors = {layer.name: layer.rand_distance_floor for layer in report.layers}
            self._floors = {name: floor for name, floor in floors.items() if floor is not None}
        diagnosis = diagnose(report, self.history[-1].flags if len(self.history) else None, self.thresholds)
        summary = {f"ww/{name}": value for name, value in report.summary.items()}
        return (report, diagnosis), summary | {"ww/num_flagged": float(len(diagnosis.flagged_layers))}

    @override
    def _keep(
        self,
        trainer: Trainer,
        found: tuple[WeightReport, Diagnosis],
        summary: Mapping[str, float],
        *,
        is_baseline: bool,
        step: int,
    ) -> None:
        report, diagnosis = found
        self.report, self.diagnosis = report, diagnosis
        when = f"After {trainer.global_step} steps (epoch {trainer.current_epoch})"
        risen = self._events.note(when, report, diagnosis, self.history[-1].flags if len(self.history) else {})
        self.measurement = record(
            report,
            diagnosis,
            metrics=self.metrics,
            summary=self._held,
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            is_baseline=is_baseline,
            number=self.history.next_number,
        )
        self.history.append(self.measurement)
        self._logged.choose(report, diagnosis)
        for skip in report.skipped:
            if skip.reason in UNEXPECTED:
                self._guard.warn_once(
                    trainer, f"{skip.name} {skip.reason}", f"skips layer `{skip.name}`: {skip.sentence}."
                )
        for flag in diagnosis.flags:
            self._guard.warn_once(trainer, f"{flag.trigger} {flag.layer}", f"at step {trainer.global_step}: {flag}")
        if not trainer.is_global_zero:
            return
        scalars = self._held | {f"ww/{name}": value for name, value in report.quantiles.items()}
        scalars |= self._logged.scalars(report, diagnosis, self.metrics, self.triggers)
        spectra = self._prefixed(self._logged.spectra(report))
        is_start = trainer.global_step == 0
        table = {
            self.log_key_prefix + "ww/report": report_table(report, diagnosis, self._events.lines, at_start=is_start)
        }
        _publish.to_loggers(trainer, self._guard, step, self._prefixed(scalars), spectra=spectra, texts=table)
        number, now = self.measurement.number, trainer.global_step
        at_once = is_baseline or bool(risen)
        self._show(trainer, lambda: self._panels.maps(self.history, at_once=at_once), step)
        self._show(trainer, lambda: self._panels.spectra(report, risen, number, now, is_baseline=is_baseline), step)

    @override
    def _last_pictures(self) -> Mapping[str, Callable[[], Any]]:
        return {} if self.report is None else self._panels.last(self.history, self.report, self.diagnosis)

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(layers=self.layers, log_key_prefix=self.log_key_prefix)

    @override
    def _state(self) -> dict[str, Any]:
        return super()._state() | {
            "logged": self._logged.state_dict(),
            "floors": self._floors,
            "events": list(self._events.lines),
            "undrawn": list(self._panels.waiting),
            "initial": None if self._initial is None else self._initial.state_dict(),
        }

    @override
    def _take_up(self, state: Mapping[str, Any]) -> None:
        super()._take_up(state)
        self._logged.load_state_dict(state["logged"])
        self._floors = state["floors"]
        self._events = Events(state.get("events", ()))
        self._panels.waiting = list(state.get("undrawn", ()))

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._initial is not None and trainer.is_global_zero and (trouble := self._initial.save()):
            self._guard.warn_once(trainer, "initial weights", trouble)
