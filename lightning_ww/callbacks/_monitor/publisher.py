"""Publishing of a view to loggers, and of a summary to `trainer.callback_metrics`; here keys get group and prefix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from lightning_ww.callbacks._monitor.layout import Category, overview
from lightning_ww.callbacks._monitor.lightning import inform
from lightning_ww.callbacks._monitor.loggers import SECONDS_PER_BYTE, Kind, Sink, left_out, sink_for
from lightning_ww.callbacks._monitor.view import full_key

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.guard import Guard
    from lightning_ww.callbacks._monitor.lightning import Trainer
    from lightning_ww.callbacks._monitor.view import View
    from lightning_ww.drawing.png import Drawn


def to_callback_metrics(trainer: Trainer, values: Mapping[str, float], group: str, prefix: str) -> None:
    """Put finite values into `trainer.callback_metrics`, where `EarlyStopping` and `ModelCheckpoint` read them."""
    for key, value in values.items():
        tensor = torch.tensor(value, dtype=torch.float32)
        if torch.isfinite(tensor):
            trainer.callback_metrics[full_key(key, group, prefix)] = tensor


class Publisher:
    """The loggers of a Trainer, at one step. An error in one logger does not affect the others.

    Args:
        trainer: The Trainer.
        guard: The monitor's guard.
        group: The group that the monitor's keys begin with.
        prefix: The prefix before the group.
        step: The step at which to log.
    """

    def __init__(self, trainer: Trainer, guard: Guard, group: str, prefix: str, step: int) -> None:
        self.trainer, self.guard = trainer, guard
        self._group, self._prefix, self._step = group, prefix, step
        sinks = guard.run(
            trainer, lambda: [sink_for(logger) for logger in trainer.loggers], "find out what loggers take"
        )
        self._sinks: list[Sink] = sinks or []

    def key(self, key: str) -> str:
        """A view's key with group and prefix."""
        return full_key(key, self._group, self._prefix)

    def takes(self, kind: Kind) -> bool:
        """Tell whether any logger takes this kind of content."""
        return any(kind in sink.takes for sink in self._sinks)

    @property
    def seconds_to_come(self) -> float:
        """The time that the loggers' own threads will take to write what was logged so far."""
        return SECONDS_PER_BYTE * sum(sink.written for sink in self._sinks)

    def scalars(self, summary: Mapping[str, float], view: View, flags: Mapping[str, float]) -> None:
        """Log numbers, histograms and texts; the keys of ``flags`` lack only the prefix."""
        numbers = {self.key(key): value for key, value in (*summary.items(), *view.scalars.items())}
        numbers |= {self._prefix + key: value for key, value in flags.items()}
        for sink in self._sinks:
            self.guard.run(self.trainer, partial(self._log, sink, numbers, view), _log_to(sink))

    def _log(self, sink: Sink, numbers: Mapping[str, float], view: View) -> None:
        if numbers:
            sink.scalars(numbers, self._step)
        if "histograms" in sink.takes:
            for key, histogram in view.histograms.items():
                sink.histogram(self.key(key), histogram, self._step)
        if "texts" in sink.takes:
            for key, text in view.texts.items():
                sink.text(self.key(key), text, self._step)

    def image(self, key: str, draw: Callable[[], Drawn | None], step: int) -> bool:
        """Draw a picture and log it at a step, which may be an earlier one; return whether that succeeded."""
        full = self.key(key)
        drawn = self.guard.run(self.trainer, draw, f"draw `{full.partition('/')[0]}`")
        if drawn is None:
            return False
        takers = [sink for sink in self._sinks if "images" in sink.takes]
        logged = [
            self.guard.succeeds(self.trainer, partial(sink.image, full, drawn, step), _log_to(sink)) for sink in takers
        ]
        return any(logged)

    def alert(self, title: str, text: str) -> None:
        """Send an alert through each logger that takes some."""
        for sink in self._sinks:
            self.guard.run(self.trainer, partial(sink.alert, title, text), _log_to(sink))

    def layout(self, categories: Sequence[Category]) -> None:
        """Lay out the charts of several monitors with each logger's own prefix."""
        for sink in self._sinks:
            named = [Category(c.group, sink.prefix + c.prefix, c.title, c.charts) for c in categories]
            self.guard.run(self.trainer, partial(sink.layout, overview(named)), "lay out the overview")

    def say_what_is_left_out(self) -> None:
        """Tell the user which kinds of content each logger does not take."""
        for said in filter(None, map(left_out, self._sinks)):
            inform(self.trainer, said)


def _log_to(sink: Sink) -> str:
    """The name of the action in a warning."""
    return f"log to {type(sink.logger).__name__}"
