"""Where numbers go: `callback_metrics` for whoever stops or saves on them, each logger for whoever looks at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lightning_ww.callbacks._lightning import Trainer
    from lightning_ww.panels.esd import EsdBins
    from lightning_ww.weights.spectrum import Spectrum


def to_callback_metrics(trainer: Trainer, values: Mapping[str, float]) -> None:
    """0-d tensors, where `EarlyStopping` and `ModelCheckpoint` look. The caller sees to it that all are finite."""
    trainer.callback_metrics.update({key: torch.tensor(value) for key, value in values.items()})


def to_loggers(trainer: Trainer, values: Mapping[str, float], step: int) -> None:
    """Scalars to every logger; a logger writes on rank zero only."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(values), step=step)


def histograms(trainer: Trainer, spectra: Mapping[str, tuple[Spectrum, EsdBins]], step: int) -> None:
    """log10 λ of each layer, by tag, where a logger's experiment takes histograms of bins (TensorBoard)."""
    for prefix, experiment in _experiments(trainer, "add_histogram_raw"):
        for tag, (spectrum, bins) in spectra.items():
            eigenvalues = spectrum.eigenvalues
            counts, edges = bins.count(eigenvalues), bins.edges
            logs = torch.as_tensor(eigenvalues).log10().clamp(bins.low, bins.high)
            experiment.add_histogram_raw(
                prefix + tag,
                min=float(logs.min()),
                max=float(logs.max()),
                num=int(counts.sum()),
                sum=float(logs.sum()),
                sum_squares=float(logs.square().sum()),
                bucket_limits=edges[1:].tolist(),
                bucket_counts=counts.tolist(),
                global_step=step,
            )


def text(trainer: Trainer, tag: str, markdown: str, step: int) -> None:
    """A text where a logger's experiment takes one (TensorBoard)."""
    for prefix, experiment in _experiments(trainer, "add_text"):
        experiment.add_text(prefix + tag, markdown, global_step=step)


def _experiments(trainer: Trainer, method: str) -> Iterator[tuple[str, Any]]:
    """The loggers' experiments that have a method, with the prefix that `log_metrics` would have added."""
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        experiment = getattr(logger, "experiment", None)
        if callable(getattr(experiment, method, None)):
            prefix = getattr(logger, "_prefix", "") or ""
            yield (f"{prefix}{getattr(logger, 'LOGGER_JOIN_CHAR', '-')}" if prefix else ""), experiment
