"""`Run`: the state of a monitor in one run. It is made when a fit begins; a fit that continues the run keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from lightning_ww.callbacks._monitor.clock import Clock
from lightning_ww.callbacks._monitor.events import Events
from lightning_ww.callbacks._monitor.guard import Guard
from lightning_ww.callbacks._monitor.pictures import Pictures
from lightning_ww.callbacks._monitor.restoring import Restoring
from lightning_ww.history import History, Measurement
from lightning_ww.triggers.diagnosis import Diagnosis, Flag

if TYPE_CHECKING:
    from concurrent.futures import Future

    from lightning_ww.callbacks._monitor.layout import Category
    from lightning_ww.callbacks._monitor.lightning import Trainer
    from lightning_ww.callbacks._monitor.worker import Worker
    from lightning_ww.history import Moment

M = TypeVar("M")

FORM = 3
"""The version of a run's saved state; a state of another version is not restored."""


class Memory:
    """The state of a run in addition to that of all monitors; a class of monitors may define a subclass."""

    def state_dict(self) -> dict[str, Any]:
        """The state as numbers, strings, lists, dicts and tensors."""
        return {}

    def write(self) -> str | None:
        """Write the data that are too large for a checkpoint, when one is saved; return a warning if that failed."""
        return None


class Batches(Protocol):
    """The batches that a monitor measures on."""

    is_complete: bool
    are_drawn: bool  # from the user's own data, all at once
    unfit: list[str]  # why batches were left out

    def take(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        """Keep a batch that is about to be trained on."""

    def drop(self, why: str) -> None:
        """Leave out the last batch, since it cannot be measured."""

    def why_none(self) -> str | None:
        """The reason why there are none at the end of a fit, if batches were left out."""

    def close(self) -> str | None:
        """Stop waiting for batches if an epoch had too few; return a warning in that case."""


@dataclass(frozen=True)
class Between:
    """The numbers that a monitor follows between its measurements."""

    what: str  # the name of the action in a warning: "follow the sharpness"
    every_n_steps: int
    follow: Callable[[Any, Any], Mapping[str, float]]  # (trainer, module) -> numbers by name


@dataclass(frozen=True)
class Pending:
    """A measurement that was begun."""

    trainer: Trainer
    moment: Moment
    find: Callable[[], tuple[Any, float]] | None  # gives the findings and the seconds that they took; None: it failed
    seconds: float  # that it took to begin
    future: Future[Any] | None = None  # the answer of another process

    @property
    def is_done(self) -> bool:
        """Tell whether it can be completed without waiting."""
        return self.future is None or self.future.done()


@dataclass
class Run(Generic[M]):
    """The state of a monitor in one run."""

    guard: Guard
    history: History[Any]
    findings: M | None = None  # of the latest measurement
    measurement: Measurement | None = None  # the latest, even if the history did not add it
    diagnosis: Diagnosis = field(default_factory=Diagnosis)
    unjudged: tuple[str, ...] = ()  # triggers that failed at the latest measurement
    held: dict[str, float] = field(default_factory=dict)  # the last value of every summary, for `callback_metrics`
    events: Events = field(default_factory=Events)
    risen: tuple[Flag, ...] = ()  # the new flags of the latest measurement
    pictures: Pictures = field(default_factory=Pictures)
    clock: Clock = field(default_factory=Clock)
    category: Category | None = None  # the latest view's charts
    laid_out: list[Category] = field(default_factory=list)  # the categories of all monitors at the last layout
    has_new_charts: bool = False  # whether the layout has not heard of `category` yet
    memory: Memory | None = None  # the monitor's own
    batches: Batches | None = None  # if the monitor measures on batches
    between: Between | None = None
    pending: Pending | None = None  # a measurement in the background
    worker: Worker | None = None  # of all monitors of the Trainer, if this is the first of them
    has_lost_worker: bool = False  # whether that process has ended by itself
    last_step: int | None = None  # the step of the last measurement
    attempts: int = 0  # measurements begun, equal on all processes
    last_followed: int = 0
    left_out: int = 0  # due measurements that `max_overhead` left out
    is_training: bool = False
    is_first_batch: bool = True  # whether the next batch is the first of the fit
    is_restored: bool = False  # whether the fit began with a state from a checkpoint
    is_off: bool = False  # nothing can be measured any more

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values."""
        return {
            "form": FORM,
            "history": self.history.state_dict(),
            "held": dict(self.held),
            "warned": self.guard.state_dict(),
            "events": list(self.events.lines),
            "memory": {} if self.memory is None else self.memory.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> list[str]:
        """Restore the state that `state_dict` returned; the monitor itself restores its memory.

        Returns:
            Sentences on parts that could not be restored.

        Raises:
            Exception: If the history cannot be read.
        """
        unknown = self.history.load_state_dict(state["history"])
        restoring = Restoring(
            {name: value for name, value in state.items() if name not in ("form", "history", "memory")}
        )
        restoring.part("held", lambda held: self.held.update({str(k): float(v) for k, v in held.items()}))
        restoring.part("warned", self.guard.load_state_dict)
        restoring.part("events", lambda lines: setattr(self, "events", Events([str(line) for line in lines])))
        if unknown:
            names = ", ".join(f"`{name}`" for name in unknown)
            restoring.troubles.append(f"ignores {names} of the measurements in the checkpoint.")
        return restoring.finish()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the batches, what refers to the Trainer, and the process beside training."""
        return {**vars(self), "batches": None, "between": None, "pending": None, "worker": None}
