"""Where numbers go: `callback_metrics` for whoever stops or saves on them, each logger for whoever looks at them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from lightning_ww.callbacks._monitor import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lightning_ww.callbacks._monitor.guard import Guard
    from lightning_ww.callbacks._monitor.lightning import Trainer
    from lightning_ww.weights.plots.histogram import EsdBins
    from lightning_ww.weights.spectrum import Spectrum

    Pixels = NDArray[np.uint8]

LAYOUT_RUN = "lightning-ww"
"""The run in TensorBoard that holds the layout alone."""


def to_callback_metrics(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Finite 0-d tensors, where `EarlyStopping` and `ModelCheckpoint` look."""
    tensors = {key: torch.tensor(value, dtype=torch.float32) for key, value in values.items()}
    trainer.callback_metrics.update({key: tensor for key, tensor in tensors.items() if torch.isfinite(tensor)})


def to_loggers(
    trainer: Trainer,
    guard: Guard,
    step: int,
    scalars: Mapping[str, float] | None = None,
    *,
    spectra: Mapping[str, tuple[Spectrum, EsdBins]] | None = None,
    texts: Mapping[str, str] | None = None,
    images: Mapping[str, Pixels] | None = None,
) -> None:
    """The same to each logger; one that fails takes nothing from the others."""
    for logger in trainer.loggers:
        action = partial(to_logger, logger, step, scalars or {}, spectra or {}, texts or {}, images or {})
        guard.run(trainer, action, f"log to {type(logger).__name__}")


def to_logger(
    logger: Any,
    step: int,
    scalars: Mapping[str, float],
    spectra: Mapping[str, tuple[Spectrum, EsdBins]],
    texts: Mapping[str, str],
    images: Mapping[str, Pixels],
) -> None:
    """Scalars to any logger; to one that writes for TensorBoard all else; images to those of others that take them."""
    if scalars:
        logger.log_metrics(dict(scalars), step=step)
    prefix, writer = _summary_writer(logger)
    if writer is None:
        for tag, pixels in images.items():
            _image_elsewhere(logger, tag, pixels, step)
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
    for tag, pixels in images.items():
        writer.add_image(prefix + tag, pixels, global_step=step, dataformats="HWC")


def _take_images(trainer: Trainer) -> bool:
    """Whether any logger does, so that there is reason to draw."""
    return any(_summary_writer(logger)[1] is not None or _image_taker(logger) for logger in trainer.loggers)


def pictures(
    trainer: Trainer, guard: Guard, step: int, prefix: str, due: Callable[[], Mapping[str, Callable[[], Pixels]]]
) -> None:
    """Draw what is due, and log it; a picture that fails costs nothing but itself.

    `fast_dev_run` has one of each kind.
    """
    if not guard.run(trainer, partial(_take_images, trainer), "find out which loggers take images"):
        return
    drawings = dict(guard.run(trainer, due, "draw") or {})
    if getattr(trainer, "fast_dev_run", False):
        first = {tag.partition("/")[0]: tag for tag in reversed(drawings)}
        drawings = {tag: drawings[tag] for tag in first.values()}
    for tag, draw in drawings.items():
        if (pixels := guard.run(trainer, draw, f"draw `{tag.partition('/')[0]}`")) is not None:
            to_loggers(trainer, guard, step, images={prefix + tag: pixels})


def overview(trainer: Trainer, guard: Guard, monitors: Sequence[layout.Curves]) -> None:
    """Lay out the curves of these monitors under TensorBoard's Custom Scalars.

    In a run of its own beside the user's: of several layouts of one run the last alone is shown.
    """
    for logger in trainer.loggers:
        guard.run(trainer, partial(_write_layout, logger, monitors), "lay out the overview")


def _write_layout(logger: Any, monitors: Sequence[layout.Curves]) -> None:
    prefix, writer = _summary_writer(logger)
    folder = getattr(writer, "log_dir", None)
    if isinstance(folder, str) and folder:
        named = [one._replace(prefix=prefix + one.prefix) for one in monitors]
        with type(writer)(log_dir=f"{folder}/{LAYOUT_RUN}") as beside:
            beside.add_custom_scalars(layout.overview(named))


def _image_taker(logger: Any) -> str | None:
    """How this logger takes images: as Lightning's for W&B, or by an experiment such as MLflow's or Comet's."""
    if callable(getattr(logger, "log_image", None)):
        return "logger"
    experiment = getattr(logger, "experiment", None)
    if not callable(getattr(experiment, "log_image", None)):
        return None
    return "run" if getattr(logger, "run_id", None) is not None else "experiment"


def _image_elsewhere(logger: Any, tag: str, pixels: Pixels, step: int) -> None:
    taker, prefix = _image_taker(logger), _prefix(logger)
    if taker == "logger":  # which adds its prefix itself
        logger.log_image(key=tag, images=[pixels], step=step)
    elif taker == "run":  # MLflow's client: a file for each step, in a folder for each tag
        logger.experiment.log_image(logger.run_id, pixels, artifact_file=f"{prefix}{tag}/step_{step}.png")
    elif taker == "experiment":  # Comet's
        logger.experiment.log_image(pixels, name=prefix + tag, step=step)


def _prefix(logger: Any) -> str:
    """What `log_metrics` adds before a key."""
    prefix = getattr(logger, "_prefix", "") or ""
    return f"{prefix}{getattr(logger, 'LOGGER_JOIN_CHAR', '-')}" if prefix else ""


def _summary_writer(logger: Any) -> tuple[str, Any]:
    """The logger's prefix, and its experiment if that is a TensorBoard writer."""
    experiment = getattr(logger, "experiment", None)
    if not callable(getattr(experiment, "add_histogram_raw", None)):
        return "", None
    return _prefix(logger), experiment
