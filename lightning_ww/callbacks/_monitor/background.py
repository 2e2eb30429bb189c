"""`Background`: measurements that are begun at one hook of training and completed at a later one."""

from __future__ import annotations

import time
from abc import abstractmethod
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from lightning_ww._errors import ArgumentError, LightningWWError
from lightning_ww.callbacks._monitor.beside import Beside
from lightning_ww.callbacks._monitor.lightning import callbacks
from lightning_ww.callbacks._monitor.ranks import parts_of_all
from lightning_ww.callbacks._monitor.run import Pending
from lightning_ww.callbacks._monitor.scheduled import Scheduled
from lightning_ww.callbacks._monitor.worker import WorkerLostError
from lightning_ww.history import Findings, Measurement, Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightning_ww.callbacks._monitor.guard import Guard
    from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer
    from lightning_ww.callbacks._monitor.worker import Worker

S = TypeVar("S")
M = TypeVar("M", bound=Findings)

Taken = tuple[M, Measurement, dict[str, float]]
"""Findings, the measurement of them, and its summary."""


class Background(Beside, Scheduled, Generic[S, M]):
    """A monitor that may measure in a process beside training."""

    MOVES: ClassVar[bool] = False
    """Whether ``execution="background"`` moves its numbers, too."""

    SHARES: ClassVar[bool] = False
    """Whether each process of a run measures a share, which `_snapshot` chooses; `_joined` joins what all have found."""

    def _is_in_background(self, trainer: Trainer) -> bool:
        """Tell whether measurements are completed at a later hook."""
        return self.MOVES and self.execution == "background" and not getattr(trainer, "fast_dev_run", False)

    @abstractmethod
    def _snapshot(self, trainer: Trainer, pl_module: LightningModule) -> S:
        """Take the inputs of a measurement."""

    @abstractmethod
    def _measure(self, snapshot: S, moment: Moment) -> M:
        """Measure."""

    @abstractmethod
    def _judged(self, trainer: Trainer, findings: M, moment: Moment, seconds: float) -> Taken[M]:
        """Judge what was found."""

    @abstractmethod
    def _complete(self, trainer: Trainer, taken: Taken[M] | None, moment: Moment, began: float) -> None:
        """Publish and remember."""

    def _of_all(self, trainer: Trainer, find: Callable[[], M]) -> M:
        """What the processes of a run have found, each of its share; a collective call."""
        if trainer.world_size == 1 or not self.SHARES:
            return find()
        return self._joined(parts_of_all(trainer, find))

    def _joined(self, parts: Sequence[M]) -> M:
        """Join what the processes have found, in their order."""
        raise NotImplementedError

    def _ask(self, worker: Worker, snapshot: S, moment: Moment) -> Future[tuple[M, float]] | None:
        """Ask another process to measure; ``None`` (default): only this one can."""
        return None

    def _begun(self, trainer: Trainer, pl_module: LightningModule, moment: Moment) -> Pending:
        """Take the inputs of a measurement, and ask another process for its findings; without one, find them now."""
        began = time.perf_counter()
        snapshot = self._snapshot(trainer, pl_module)
        worker = self._worker(trainer)
        is_free = worker is not None and worker.num_waiting == 0  # neither starting nor drawing, which may take longer
        if worker is not None and is_free and (future := self._ask(worker, snapshot, moment)) is not None:
            find = partial(self._answered, trainer, worker, future, snapshot, moment)
            return Pending(trainer, moment, find, time.perf_counter() - began, future)
        findings = self._measure(snapshot, moment)
        return Pending(trainer, moment, lambda: (findings, 0.0), time.perf_counter() - began)

    def _answered(
        self, trainer: Trainer, worker: Worker, future: Future[tuple[M, float]], snapshot: S, moment: Moment
    ) -> tuple[M, float]:
        """The findings of another process, and the seconds that they took; if it failed, they are found here.

        Its start, which takes seconds, is not waited for either.
        """
        try:
            return future.result(timeout=None if worker.is_ready else 0)
        except Exception as error:  # whatever went wrong there, here it goes as without it
            if isinstance(error, WorkerLostError):
                said = "measures in the training process from now on, since the process beside it has ended."
                self._run.guard.warn_once(trainer, "worker", said)
            began = time.perf_counter()
            findings = self._measure(snapshot, moment)
            return findings, time.perf_counter() - began

    def _join(self, trainer: Trainer, *, is_awaited: bool = True) -> None:
        """Complete the measurement that was begun; unless it is awaited, only if it is done.

        All processes of a run complete it at the same hooks, where it is awaited.
        """
        run = self._run
        pending = run.pending
        if pending is None or not (is_awaited or (pending.is_done and trainer.world_size == 1)):
            return
        run.pending = None
        with run.clock.spending() as began:
            take = partial(self._or_off, trainer, partial(self._found, trainer, pending))
            is_alone = trainer.world_size == 1 or not self.SHARES
            taken = None if pending.find is None and is_alone else run.guard.run(trainer, take)
            self._complete(trainer, taken, pending.moment, began)
        run.clock.last += pending.seconds

    def _found(self, trainer: Trainer, pending: Pending) -> Taken[M]:
        seconds = [pending.seconds]

        def find() -> M:
            if pending.find is None:
                raise LightningWWError("it could not begin to measure")
            findings: M
            findings, taken = pending.find()
            seconds.append(taken)
            return findings

        return self._judged(trainer, self._of_all(trainer, find), pending.moment, sum(seconds))

    def _join_after_error(self, trainer: Trainer, guard: Guard) -> None:
        """Complete the measurement that was begun while an error of the user's is raised; other processes may not be there."""
        run = self._run
        own, run.guard = run.guard, guard
        try:
            if trainer.world_size == 1:
                self._join(trainer)
        finally:
            run.guard, run.pending = own, None

    def _refuse_watchers(self, trainer: Trainer) -> None:
        """Raise `ArgumentError` if something reads this monitor's numbers in their epoch, while they come later."""
        if not self._is_in_background(trainer):
            return
        ours = f"{self.log_key_prefix}{self.GROUP}/"
        found: list[str] = []
        for callback in callbacks(trainer):
            name = type(callback).__name__
            if str(getattr(callback, "monitor", None) or "").startswith(ours):
                found.append(f"`{name}(monitor={callback.monitor!r})`")
            if f"{{{ours}" in str(getattr(callback, "filename", None) or ""):
                found.append(f"`{name}(filename={callback.filename!r})`")
        for config in trainer.lr_scheduler_configs:
            if str(getattr(config, "monitor", None) or "").startswith(ours):
                found.append(f"the monitor {config.monitor!r} of a `{type(config.scheduler).__name__}`")
        if found:
            raise ArgumentError(
                f"`{type(self).__name__}(execution='background')`: {found[0]} reads a number in its epoch, and in the "
                "background numbers come later. Leave out `execution`, or let it watch another number."
            )
