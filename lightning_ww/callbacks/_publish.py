"""Where numbers go: `callback_metrics` for whoever stops or saves on them, each logger for whoever looks at them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from lightning_ww.callbacks._guard import Guard
    from lightning_ww.callbacks._lightning import Trainer
    from lightning_ww.panels.esd import EsdBins
    from lightning_ww.weights.spectrum import Spectrum


def to_callback_metrics(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Finite 0-d tensors, where `EarlyStopping` and `ModelCheckpoint` look."""
    tensors = {key: torch.tensor(value, dtype=torch.float32) for key, value in values.items()}
    trainer.callback_metrics.update({key: tensor for key, tensor in tensors.items() if torch.isfinite(tensor)})


def to_loggers(
    trainer: Trainer,
    guard: Guard,
    scalars: Mapping[str, float],
    spectra: Mapping[str, tuple[Spectrum, EsdBins]],
    texts: Mapping[str, str],
    step: int,
    images: Mapping[str, NDArray[np.uint8]] | None = None,
) -> None:
    """The same to each logger; one that fails takes nothing from the others."""
    for logger in trainer.loggers:
        action = partial(to_logger, logger, scalars, spectra, texts, step, images)
        guard.run(trainer, action, f"log to {type(logger).__name__}")


def to_logger(
    logger: Any,
    scalars: Mapping[str, float],
    spectra: Mapping[str, tuple[Spectrum, EsdBins]],
    texts: Mapping[str, str],
    step: int,
    images: Mapping[str, NDArray[np.uint8]] | None = None,
) -> None:
    """Scalars, by key, to any logger; histograms of log10 λ, texts and images, by tag, to one that writes for TensorBoard."""
    logger.log_metrics(dict(scalars), step=step)
    prefix, writer = _summary_writer(logger)
    if writer is None:
        return
    for tag, (spectrum, bins) in spectra.items():
        counts = bins.count(spectrum.eigenvalues)
        logs = torch.as_tensor(spectrum.eigenvalues).log10().clamp(bins.low, bins.high)
        writer.add_histogram_raw(
            prefix + tag,
            min=float(logs.min()),
            max=float(logs.max()),
            num=int(counts.sum()),
            sum=float(logs.sum()),
            sum_squares=float(logs.square().sum()),
            bucket_limits=bins.edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
        )
    for tag, markdown in texts.items():
        writer.add_text(prefix + tag, markdown, global_step=step)
    for tag, pixels in (images or {}).items():
        writer.add_image(prefix + tag, pixels, global_step=step, dataformats="HWC")


def _summary_writer(logger: Any) -> tuple[str, Any]:
    """The prefix that `log_metrics` would have added, and the logger's experiment if it is a TensorBoard writer."""
    experiment = getattr(logger, "experiment", None)
    if not callable(getattr(experiment, "add_histogram_raw", None)):
        return "", None
    prefix = getattr(logger, "_prefix", "") or ""
    return (f"{prefix}{getattr(logger, 'LOGGER_JOIN_CHAR', '-')}" if prefix else ""), experiment
