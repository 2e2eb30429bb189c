"""Adapters of loggers: each names the kinds of content that its logger takes, and logs them in the logger's format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.layout import Layout
    from lightning_ww.callbacks._monitor.view import Histogram
    from lightning_ww.drawing.png import Drawn

Kind = Literal["histograms", "texts", "images"]
"""The kinds of content that a logger may take in addition to scalars, which every logger takes."""

LAYOUT_RUN = "lightning-ww"
"""The run in TensorBoard that contains only the layout."""


SCALAR, HISTOGRAM = 90, 160
"""The bytes of a scalar, and of a histogram without its bins, in TensorBoard's files."""

SECONDS_PER_BYTE = 1.1e-7
"""The time in which TensorBoard's thread writes a byte, with a checksum in Python, under Python's lock (measured)."""


class Sink:
    """A logger that takes only scalars."""

    takes: ClassVar[frozenset[Kind]] = frozenset()

    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.written = 0  # bytes that a thread of the logger writes later, as far as they are known

    @property
    def prefix(self) -> str:
        """The prefix that the logger's `log_metrics` puts before a key."""
        prefix = getattr(self.logger, "_prefix", "") or ""
        return f"{prefix}{getattr(self.logger, 'LOGGER_JOIN_CHAR', '-')}" if prefix else ""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers by key."""
        self.logger.log_metrics(dict(values), step=step)

    def histogram(self, key: str, histogram: Histogram, step: int) -> None:
        """Log counts in bins."""
        raise NotImplementedError

    def text(self, key: str, markdown: str, step: int) -> None:
        """Log a text."""
        raise NotImplementedError

    def image(self, key: str, drawn: Drawn, step: int) -> None:
        """Log a picture."""
        raise NotImplementedError

    def alert(self, title: str, text: str) -> None:
        """Send an alert, if the logger's experiment takes some, as those of Weights & Biases and Comet do."""
        experiment: Any = getattr(self.logger, "experiment", None)
        if _has(experiment, "alert"):
            experiment.alert(title=title, text=text)
        elif _has(experiment, "send_notification"):
            experiment.send_notification(title, status=text)

    def layout(self, layout: Layout) -> None:
        """Lay out charts, if the logger has a layout."""


class TensorBoardSink(Sink):
    """A logger whose experiment is a `SummaryWriter`."""

    takes = frozenset({"histograms", "texts", "images"})

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        super().scalars(values, step)
        self.written += SCALAR * len(values)

    def histogram(self, key: str, histogram: Histogram, step: int) -> None:
        values = torch.as_tensor(histogram.values)
        self.logger.experiment.add_histogram_raw(
            self.prefix + key,
            min=float(values.min()),
            max=float(values.max()),
            num=int(histogram.counts.sum()),
            sum=float(values.sum()),
            sum_squares=float(values.square().sum()),
            bucket_limits=histogram.edges[1:].tolist(),
            bucket_counts=histogram.counts.tolist(),
            global_step=step,
        )
        self.written += HISTOGRAM + 16 * len(histogram.counts)

    def text(self, key: str, markdown: str, step: int) -> None:
        self.logger.experiment.add_text(self.prefix + key, markdown, global_step=step)
        self.written += len(markdown)

    def image(self, key: str, drawn: Drawn, step: int) -> None:
        """Log a picture, as a PNG file with a palette; `add_image` would make one of full color."""
        experiment = self.logger.experiment
        if (writer := experiment._get_file_writer()) is None:  # Lightning's own stand-in under `fast_dev_run`
            return
        is_other = any(base.__module__.startswith("tensorboardX") for base in type(experiment).__mro__)
        proto = import_module(("tensorboardX" if is_other else "tensorboard.compat") + ".proto.summary_pb2")
        file, (height, width, _) = drawn.png, drawn.pixels.shape
        image = proto.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=file)
        writer.add_summary(proto.Summary(value=[proto.Summary.Value(tag=self.prefix + key, image=image)]), step)
        self.written += len(file)

    def layout(self, layout: Layout) -> None:
        """Write the layout to a separate run next to the user's, since TensorBoard shows only the last layout of a run."""
        writer = self.logger.experiment
        if isinstance(folder := getattr(writer, "log_dir", None), str) and folder:
            with type(writer)(log_dir=f"{folder}/{LAYOUT_RUN}") as beside:
                beside.add_custom_scalars(layout)


class WandbSink(Sink):
    """Lightning's logger for Weights & Biases, which adds its prefix itself."""

    takes = frozenset({"histograms", "texts", "images"})

    def histogram(self, key: str, histogram: Histogram, step: int) -> None:
        import wandb

        counts = (histogram.counts.tolist(), histogram.edges.tolist())
        self.logger.log_metrics({key: wandb.Histogram(np_histogram=counts)}, step=step)

    def text(self, key: str, markdown: str, step: int) -> None:
        self.logger.log_text(key=key, columns=["Markdown"], data=[[markdown]], step=step)

    def image(self, key: str, drawn: Drawn, step: int) -> None:
        self.logger.log_image(key=key, images=[drawn.pixels], step=step)


class MLflowSink(Sink):
    """Lightning's logger for MLflow: a file for each step, in a folder for each key; MLflow has no histograms."""

    takes = frozenset({"texts", "images"})

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers by key; Lightning would drop letters that MLflow does not allow, so that keys could become alike."""
        super().scalars({_allowed(key): value for key, value in values.items()}, step)

    def text(self, key: str, markdown: str, step: int) -> None:
        file = f"{self.prefix}{_allowed(key)}/step_{step}.md"
        self.logger.experiment.log_text(self.logger.run_id, markdown, artifact_file=file)

    def image(self, key: str, drawn: Drawn, step: int) -> None:
        file = f"{self.prefix}{_allowed(key)}/step_{step}.png"
        self.logger.experiment.log_image(self.logger.run_id, drawn.pixels, artifact_file=file)


class CometSink(Sink):
    """Lightning's logger for Comet."""

    takes = frozenset({"histograms", "texts", "images"})

    def histogram(self, key: str, histogram: Histogram, step: int) -> None:
        self.logger.experiment.log_histogram_3d(histogram.values.tolist(), name=self.prefix + key, step=step)

    def text(self, key: str, markdown: str, step: int) -> None:
        self.logger.experiment.log_text(markdown, step=step, metadata={"name": self.prefix + key})

    def image(self, key: str, drawn: Drawn, step: int) -> None:
        self.logger.experiment.log_image(drawn.pixels, name=self.prefix + key, step=step)


class ImageSink(Sink):
    """Any other logger that takes images in the way of Weights & Biases or Comet."""

    takes = frozenset({"images"})

    def image(self, key: str, drawn: Drawn, step: int) -> None:
        if _has(type(self.logger), "log_image"):
            self.logger.log_image(key=key, images=[drawn.pixels], step=step)
        else:
            self.logger.experiment.log_image(drawn.pixels, name=self.prefix + key, step=step)


def sink_for(logger: Any) -> Sink:
    """Choose the adapter of a logger by the logger's methods, not by its class, which exists in two namespaces."""
    experiment = getattr(logger, "experiment", None)
    if _has(experiment, "add_histogram_raw", "add_text", "_get_file_writer"):
        return TensorBoardSink(logger)
    if _has(type(logger), "log_image", "log_text"):
        return WandbSink(logger)
    if getattr(logger, "run_id", None) is not None and _has(experiment, "log_image", "log_text"):
        return MLflowSink(logger)
    if _has(experiment, "log_image", "log_text", "log_histogram_3d"):
        return CometSink(logger)
    takes_images = _has(type(logger), "log_image") or _has(experiment, "log_image")
    return ImageSink(logger) if takes_images else Sink(logger)


def left_out(sink: Sink) -> str | None:
    """A sentence on the kinds of content that a logger does not take, or ``None`` if it takes everything."""
    kinds: tuple[Kind, ...] = ("histograms", "texts", "images")
    missing = [kind for kind in kinds if kind not in sink.takes]
    if not missing:
        return None
    return f"`{type(sink.logger).__name__}` gets no {' or '.join(missing)}: it does not take them."


def _allowed(key: str) -> str:
    """A key of MLflow, in which a letter that is not allowed stands as its number: ``a[0]`` as ``a_5b_0_5d_``."""
    return re.sub(r"[^a-zA-Z0-9_/. -]", lambda match: f"_{ord(match[0]):x}_", key)


def _has(value: Any, *methods: str) -> bool:
    return value is not None and all(callable(getattr(value, method, None)) for method in methods)
