"""`Run`: what a monitor remembers of one run. It is made when a fit begins; a fit that resumes or goes on keeps it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from lightning_ww.callbacks._monitor.events import Events
from lightning_ww.callbacks._monitor.guard import Guard
from lightning_ww.callbacks._monitor.pictures import Pictures
from lightning_ww.history import History, Measurement
from lightning_ww.triggers.diagnosis import Diagnosis

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.layout import Category

M = TypeVar("M")

FORM = 2
"""The form of a run's state; that of another form is not taken up."""


class Memory:
    """What a monitor remembers of a run besides what all monitors do; a monitor may have one of its own kind."""

    def state_dict(self) -> dict[str, Any]:
        """Numbers, strings, lists, dicts and tensors alone."""
        return {}

    def write(self) -> str | None:
        """Write what is too large for a checkpoint, when one is saved; what went wrong is returned in words."""
        return None


class Batches(Protocol):
    """The batches that a monitor measures on, which it takes as they pass."""

    is_complete: bool
    are_drawn: bool  # from data of the user's own, all at once

    def take(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        """Take a batch that is about to be trained on."""

    def close(self) -> str | None:
        """Make do with the batches of an epoch, if it had too few; that is returned in words."""


@dataclass(frozen=True)
class Between:
    """What a monitor follows between its measurements."""

    what: str  # is done, for a warning: "follow the sharpness"
    every_n_steps: int
    follow: Callable[[Any, Any], Mapping[str, float]]  # (trainer, module) -> numbers by name


class Clock:
    """The wall time of a fit, and how much of it went into measuring and logging."""

    def __init__(self) -> None:
        self.began = self.spent = 0.0
        self._epoch_began = self._spent_before = 0.0

    def start(self) -> None:
        """Begin a fit."""
        self.began, self.spent = time.perf_counter(), 0.0

    def start_epoch(self) -> None:
        """Begin an epoch."""
        self._epoch_began, self._spent_before = time.perf_counter(), self.spent

    @property
    def trained_in_epoch(self) -> float:
        """The seconds of this epoch that went into anything else than us."""
        return time.perf_counter() - self._epoch_began - (self.spent - self._spent_before)

    @contextmanager
    def measuring(self) -> Iterator[float]:
        """Count what is done within as spent; gives the time at which it began."""
        began = time.perf_counter()
        try:
            yield began
        finally:
            self.spent += time.perf_counter() - began

    def share(self, began: float) -> float:
        """The share of the fit that was spent so far, with what began then."""
        now = time.perf_counter()
        return (self.spent + now - began) / (now - self.began)


@dataclass
class Run(Generic[M]):
    """What a monitor remembers of one run."""

    guard: Guard
    history: History[Any]
    findings: M | None = None  # the latest
    measurement: Measurement | None = None  # the latest, also where the history did not take it
    diagnosis: Diagnosis = field(default_factory=Diagnosis)
    held: dict[str, float] = field(default_factory=dict)  # the last value of every summary, for `callback_metrics`
    events: Events = field(default_factory=Events)
    risen: tuple[str, ...] = ()  # layers with a flag that is new at the latest measurement
    pictures: Pictures = field(default_factory=Pictures)
    clock: Clock = field(default_factory=Clock)
    category: Category | None = None  # the latest view's charts
    laid_out: list[Category] = field(default_factory=list)  # of all monitors, when charts were laid out last
    memory: Memory | None = None  # the monitor's own
    batches: Batches | None = None  # where the monitor measures on batches
    between: Between | None = None
    last_step: int | None = None  # at which something was measured
    last_followed: int = 0
    is_training: bool = False
    is_first_batch: bool = True  # of the fit
    is_off: bool = False  # nothing can be measured any more

    def state_dict(self) -> dict[str, Any]:
        """Plain values alone."""
        return {
            "form": FORM,
            "history": self.history.state_dict(),
            "held": dict(self.held),
            "warned": self.guard.state_dict(),
            "events": list(self.events.lines),
            "memory": {} if self.memory is None else self.memory.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave; the monitor takes up its memory itself."""
        self.history.load_state_dict(state["history"])
        self.held = dict(state["held"])
        self.guard.load_state_dict(state["warned"])
        self.events = Events(state["events"])

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the batches, and what is called with the Trainer."""
        return {**vars(self), "batches": None, "between": None}
