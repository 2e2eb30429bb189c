"""`WeightSpectrumMonitor`: the spectra of the weights, while the network trains."""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
from typing_extensions import override

from lightning_ww.analyze import Shuffle, measure
from lightning_ww.callbacks import _publish
from lightning_ww.callbacks._initial import InitialWeights
from lightning_ww.callbacks._lightning import CallbackBase, LightningModule, Trainer, warn
from lightning_ww.callbacks._schedule import Schedule, logged_step
from lightning_ww.diagnosis import TRIGGERS, Diagnosis, FlagThresholds, TriggerName, diagnose
from lightning_ww.history import History, Measurement, record
from lightning_ww.panels.esd import EsdBins
from lightning_ww.panels.table import report_table
from lightning_ww.report import BULK_METRICS, METRICS, WeightReport
from lightning_ww.weights.matrices import find_layers
from lightning_ww.weights.randomized import Shuffler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

DEFAULT_METRICS = ("alpha", "rand_distance", "sv_min", "distance_from_init", "stable_rank")


class WeightSpectrumMonitor(CallbackBase):
    """Measure each layer's weight spectrum while the network trains, log it, and flag what looks wrong.

    It measures when training starts, after each epoch's last batch and, if asked, every so many optimiser steps. The run is
    only read: weights, buffers, gradients, random streams and metrics are bit-identical with and without it. It flags and
    never stops; `SpectralEarlyStopping` stops, and so does Lightning's own ``EarlyStopping(monitor="ww/alpha")``.

    **Logged, and in** ``trainer.callback_metrics`` (``log_key_prefix`` before each; means are over the measured layers but
    embeddings):

    - ``ww/alpha``: mean power-law exponent of the layers' spectra.
    - ``ww/alpha_weighted``: mean of alpha · log10 λ_max.
    - ``ww/log_norm``: mean log10 of the squared Frobenius norm.
    - ``ww/rand_distance``: mean distance of the layers' spectra from those of the same elements shuffled, 0 … 0.83.
    - ``ww/stable_rank``: mean of ‖W‖²_F/‖W‖².
    - ``ww/distance_from_init_relative``: mean of ‖W − W₀‖/‖W₀‖.
    - ``ww/sv_min``: least singular value of any layer.
    - ``ww/rank_deficit``: largest share of collapsed singular values of any layer.
    - ``ww/num_flagged``: layers with a flag.
    - ``ww/seconds``: wall time of this measurement.
    - ``ww/overhead``: share of the fit's wall time that was spent measuring (from the second measurement on).

    **Logged only**:

    - ``ww/<metric>_q10``, ``_q50``, ``_q90`` of alpha, rand_distance and stable_rank over the layers.
    - ``ww.<metric>/<layer>``: each metric of ``metrics``, of each logged layer.
    - ``flags/<trigger>``: how many layers are flagged for `nonfinite`, `rank_collapse`, `correlation_trap`.
    - ``flags.<trigger>/<layer>``: 0 or 1, of each logged layer.
    - ``ww.esd/<layer>`` (histogram): log10 λ, in bins that stay as they are. ``ww/report`` (text): the layers as a table.

    Args:
        every_n_epochs: Measure after every so many epochs; ``None``: not by epochs. Default: ``1``.
        every_n_train_steps: Measure after every so many optimiser steps, too. Default: ``None``, not by steps.
        layers: Names or shell patterns of the layers to measure. Default: all.
        metrics: What is logged for each layer: names among `lightning_ww.METRICS`, or ``"all"``. Leave out all that begin
            with ``distance_from_init`` and no copy of the initial weights is kept. Default: the mission's four and
            stable_rank.
        shuffle: How the shuffled spectra are had, as in `lightning_ww.analyze`. Default: ``"auto"``.
        seed: Of the shuffles.
        include_frozen: Whether layers without anything to train are measured too.
        thresholds: When a flag rises and falls. Default: `FlagThresholds()`.
        log_key_prefix: Put before every key, to tell two monitors apart.
        max_logged_layers: Of more layers than this, so many, evenly by depth, are logged one by one (all are measured, and
            a layer that is flagged joins for good). Default: ``60``: with five metrics and three flags a layer, about the
            500 tags that TensorBoard shows without delay.
        max_history: Measurements kept in `history`, and so in each checkpoint. Default: ``1000``.
        on_error: An error inside a measurement warns once per cause and lets the run go on (``"warn"``), or is raised
            (``"raise"``).

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

    def __init__(
        self,
        every_n_epochs: int | None = 1,
        every_n_train_steps: int | None = None,
        layers: str | Sequence[str] | None = None,
        metrics: str | Sequence[str] = DEFAULT_METRICS,
        shuffle: Shuffle = "auto",
        seed: int = 0,
        include_frozen: bool = True,
        thresholds: FlagThresholds | None = None,
        log_key_prefix: str = "",
        max_logged_layers: int = 60,
        max_history: int = 1000,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        super().__init__()
        self._schedule = Schedule.checked(type(self).__name__, every_n_epochs, every_n_train_steps)
        self.every_n_epochs = every_n_epochs
        self.every_n_train_steps = every_n_train_steps
        self.layers = layers
        self.metrics = _checked_metrics(metrics)
        self.shuffle = _checked_choice("shuffle", shuffle, get_args(Shuffle))
        self.seed = _checked_count("seed", seed, least=0)
        self.include_frozen = include_frozen
        self.thresholds = thresholds
        self.log_key_prefix = log_key_prefix
        self.max_logged_layers = _checked_count("max_logged_layers", max_logged_layers, least=1)
        self.max_history = _checked_count("max_history", max_history, least=1)
        self.on_error = _checked_choice("on_error", on_error, ("warn", "raise"))
        self._shuffler = Shuffler(seed)
        self._model: weakref.ref[LightningModule] | None = None
        self._restored_initial: Mapping[str, str] | None = None
        self._is_restored = False
        self._reset()

    def _reset(self) -> None:
        """Forget the run."""
        self.report: WeightReport | None = None
        self.diagnosis = Diagnosis()
        self.measurement: Measurement | None = None
        self.history = History(self.max_history)
        self._initial: InitialWeights | None = None
        self._logged: list[str] = []
        self._bins: dict[str, EsdBins] = {}
        self._floors: dict[str, float] | None = None if self.shuffle != "off" else {}
        self._held: dict[str, float] = {}
        self._warned: set[str] = set()
        self._spent = 0.0
        self._began = 0.0
        self._last_step: int | None = None

    @property
    def triggers(self) -> tuple[TriggerName, ...]:
        """The triggers that this monitor can flag; two of them need the shuffled spectra."""
        return TRIGGERS if self.shuffle != "off" else ("nonfinite",)

    # ── When ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if getattr(trainer, "barebones", False):
            warn(trainer, f"`{type(self).__name__}` does nothing under `Trainer(barebones=True)`.")
            return
        is_new = self._model is None or self._model() is not pl_module
        if is_new and not self._is_restored:
            self._reset()
        self._model = weakref.ref(pl_module)
        found, _ = find_layers(pl_module, self.layers, culprit=type(self).__name__)
        directory = str(trainer.log_dir or trainer.default_root_dir)
        if not any(metric.startswith("distance_from_init") for metric in self.metrics):
            self._initial = None
        elif self._is_restored and self._restored_initial is not None:
            self._initial = self._take_up(trainer, self._restored_initial, directory)
        elif self._is_restored:
            self._initial = None
            warn(trainer, f"{self._without_initial} The checkpoint was written without them.")
        elif self._initial is None:
            self._initial = InitialWeights.take(found, directory)
        self._is_restored = False

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()
        self._spent = 0.0
        self._measure(trainer, pl_module, is_baseline=True)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._schedule.due_after_batch(trainer, self._last_step):
            self._measure(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._schedule.due_after_epoch(trainer, self._last_step):
            self._measure(trainer, pl_module, after_epoch=True)

    # ── What ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, *, is_baseline: bool = False, after_epoch: bool = False
    ) -> None:
        """Measure, diagnose, publish."""
        if getattr(trainer, "barebones", False):
            return
        began = time.perf_counter()
        self._last_step = trainer.global_step
        try:
            report = self._guarded(trainer, lambda: self._analyse(pl_module))
            diagnosis = None if report is None else diagnose(report, self.diagnosis, self.thresholds)
            now = time.perf_counter()
            summary = None
            if report is not None and diagnosis is not None:
                summary = {f"ww/{name}": value for name, value in report.summary.items()}
                summary |= {"ww/num_flagged": float(len(diagnosis.flagged_layers)), "ww/seconds": now - began}
                if not is_baseline:
                    summary["ww/overhead"] = (self._spent + now - began) / (now - self._began)
            # Every rank takes part, also one whose measurement failed; what is published is equal on all.
            summary = trainer.strategy.broadcast(summary)
            if summary is None or report is None or diagnosis is None:
                return
            self._held |= summary  # where a mean has no value now, the last one is held
            self._keep(trainer, report, diagnosis, is_baseline=is_baseline)
            _publish.to_callback_metrics(trainer, self._prefixed(self._held))
            step = logged_step(trainer, after_epoch=after_epoch)
            self._guarded(trainer, lambda: self._log(trainer, report, diagnosis, step))
            self._warn_of_new_flags(trainer, diagnosis)
        finally:
            self._spent += time.perf_counter() - began

    def _guarded(self, trainer: Trainer, action: Callable[[], T]) -> T | None:
        """What the action returns; an error of its stays here, unless asked otherwise."""
        try:
            return action()
        except Exception as error:
            if self.on_error == "raise":
                raise
            cause = f"{type(error).__name__}: {error}"
            if self._is_first(cause):
                warn(
                    trainer,
                    f"`{type(self).__name__}` could not measure at step {trainer.global_step} ({cause}). Training goes on; "
                    "the same error will not be reported again. Set `on_error='raise'` to see where it comes from.",
                )
            return None

    def _analyse(self, pl_module: LightningModule) -> WeightReport:
        found, skipped = find_layers(pl_module, self.layers, culprit=type(self).__name__)
        report = measure(
            found,
            skipped,
            initial=None if self._initial is None else self._initial.slices,
            shuffler=self._shuffler,
            shuffle=self.shuffle,
            include_frozen=self.include_frozen,
            mp_fit=not set(BULK_METRICS).isdisjoint(self.metrics),
            cka="distance_from_init_cka" in self.metrics,
            floor=self._floors is None,
        )
        if self._floors is None:  # at the first measurement only: what noise of these shapes reads
            floors = {layer.name: layer.rand_distance_floor for layer in report.layers}
            self._floors = {name: floor for name, floor in floors.items() if floor is not None}
        known = self._floors
        layers = (dataclasses.replace(layer, rand_distance_floor=known.get(layer.name)) for layer in report.layers)
        return dataclasses.replace(report, layers=tuple(layers))

    def _keep(self, trainer: Trainer, report: WeightReport, diagnosis: Diagnosis, *, is_baseline: bool) -> None:
        self.report, self.diagnosis = report, diagnosis
        self.measurement = record(
            report,
            diagnosis,
            metrics=self.metrics,
            summary=self._held,
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            is_baseline=is_baseline,
        )
        self.history.append(self.measurement)
        self._choose_logged(report, diagnosis)

    def _log(self, trainer: Trainer, report: WeightReport, diagnosis: Diagnosis, step: int) -> None:
        if trainer.is_global_zero and trainer.loggers:
            scalars = self._held | self._layer_scalars(report, diagnosis)
            _publish.to_loggers(trainer, self._prefixed(scalars), step)
            _publish.histograms(trainer, self._prefixed(self._spectra(report)), step)
            _publish.text(trainer, self.log_key_prefix + "ww/report", report_table(report, diagnosis), step)

    def _warn_of_new_flags(self, trainer: Trainer, diagnosis: Diagnosis) -> None:
        for flag in diagnosis.flags:
            if self._is_first(f"{flag.trigger} {flag.layer}"):
                warn(trainer, f"`{type(self).__name__}`, step {trainer.global_step}: {flag}")

    def _is_first(self, cause: str) -> bool:
        """Whether this was not warned of before."""
        if cause in self._warned:
            return False
        self._warned.add(cause)
        return True

    def _choose_logged(self, report: WeightReport, diagnosis: Diagnosis) -> None:
        """The layers logged one by one: fixed at the first measurement; flagged ones join for good."""
        names = [layer.name for layer in report.layers]
        if not self._logged:
            places = np.linspace(0, len(names) - 1, min(len(names), self.max_logged_layers)).round().astype(int)
            self._logged = [names[i] for i in places]
        self._logged += [name for name in diagnosis.flagged_layers if name not in self._logged]
        for layer in report.layers:
            if layer.spectrum is not None and layer.name in self._logged and layer.name not in self._bins:
                self._bins[layer.name] = EsdBins.about(layer.spectrum.eigenvalues)

    def _layer_scalars(self, report: WeightReport, diagnosis: Diagnosis) -> dict[str, float]:
        scalars = {f"ww/{name}": value for name, value in report.quantiles.items()}
        for layer in report.layers:
            if layer.name in self._logged:
                for metric in self.metrics:
                    if (value := layer.metric(metric)) is not None:
                        scalars[f"ww.{metric}/{layer.name}"] = value
        for trigger in self.triggers:
            flagged = diagnosis.layers(trigger)
            scalars[f"flags/{trigger}"] = float(len(flagged))
            scalars |= {f"flags.{trigger}/{name}": float(name in flagged) for name in self._logged}
        return scalars

    def _spectra(self, report: WeightReport) -> dict[str, Any]:
        return {
            f"ww.esd/{layer.name}": (layer.spectrum, self._bins[layer.name])
            for layer in report.layers
            if layer.name in self._bins and layer.spectrum is not None
        }

    def _prefixed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {self.log_key_prefix + key: value for key, value in values.items()}

    # ── State ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    @override
    def state_key(self) -> str:
        return self._generate_state_key(layers=self.layers, log_key_prefix=self.log_key_prefix)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self.history.state_dict(),
            "logged": list(self._logged),
            "bins": {name: [bins.low, bins.high] for name, bins in self._bins.items()},
            "floors": self._floors,
            "held": dict(self._held),
            "warned": sorted(self._warned),
            "initial": None if self._initial is None else self._initial.state_dict(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._reset()
        self.history.load_state_dict(state_dict["history"])
        self._logged = list(state_dict["logged"])
        self._bins = {name: EsdBins(*bins) for name, bins in state_dict["bins"].items()}
        self._floors = state_dict["floors"]
        self._held = dict(state_dict["held"])
        self._warned = set(state_dict["warned"])
        self._restored_initial = state_dict["initial"]
        self._is_restored = True

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._initial is None or not trainer.is_global_zero:
            return
        try:
            self._initial.save()
        except OSError as error:
            if self._is_first("initial weights"):
                warn(
                    trainer,
                    f"`{type(self).__name__}` could not write the initial weights to `{self._initial.path}` ({error}): a run "
                    "resumed from this checkpoint will not have `distance_from_init`.",
                )

    @property
    def _without_initial(self) -> str:
        return f"`{type(self).__name__}` resumes without the initial weights, and omits `distance_from_init`."

    def _take_up(self, trainer: Trainer, state: Mapping[str, str], directory: str) -> InitialWeights | None:
        """The initial weights of the run that is resumed."""
        beside = []
        if trainer.ckpt_path:
            folder = Path(trainer.ckpt_path).absolute().parent
            beside = [str(folder), str(folder.parent)]
        initial = InitialWeights.restore(state, beside, directory)
        if initial is None:
            warn(
                trainer,
                f"{self._without_initial} Expected them at `{state['path']}` or beside the checkpoint; put the file there.",
            )
        return initial


def _checked_metrics(metrics: str | Sequence[str]) -> tuple[str, ...]:
    if metrics == "all":
        return METRICS
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    for name in names:
        if name not in METRICS:
            raise ValueError(
                f"`WeightSpectrumMonitor(metrics=...)` does not know {name!r}. Known are 'all' and: {', '.join(METRICS)}."
            )
    return names


def _checked_choice(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise ValueError(f"`WeightSpectrumMonitor({name}={value!r})`: expected one of {choices}.")
    return value


def _checked_count(name: str, value: int, *, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"`WeightSpectrumMonitor({name}={value!r})`: expected an integer of at least {least}.")
    return value
