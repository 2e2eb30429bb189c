"""`Scheduled`: Lightning's hooks, and a monitor's actions in each. The measurement itself is up to the subclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar

from typing_extensions import override

from lightning_ww._errors import ArgumentError
from lightning_ww.callbacks._monitor.guard import Guard, RefusedError
from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer, callbacks, inform, told_by_any, warn
from lightning_ww.callbacks._monitor.restoring import Restoring
from lightning_ww.callbacks._monitor.resumable import Resumable
from lightning_ww.callbacks._monitor.run import FORM, Run
from lightning_ww.callbacks._monitor.schedule import Schedule
from lightning_ww.callbacks._monitor.watchers import about_watchers

T = TypeVar("T")


class Scheduled(Resumable, ABC):
    """A callback that measures at the start of training, and then on a schedule."""

    IDENTITY: ClassVar[tuple[str, ...]] = ("log_key_prefix",)
    """Arguments that tell two monitors of one class apart in a checkpoint."""

    HAS_BASELINE: ClassVar[bool] = True
    """Whether it measures at the start of a fit."""

    THERE: ClassVar[tuple[str, ...] | None] = None
    """The numbers that are there from the start of a fit; ``None``: all."""

    BEGIN_ANEW: ClassVar[str] = "starts a new history"
    """The consequence of a lost state, in words."""

    GROUP: ClassVar[str]
    """The beginning of its keys, and their group in TensorBoard."""

    _key: tuple[list[Any], str] | None = None
    _schedule: Schedule
    _run: Run[Any]
    on_error: str
    log_key_prefix: str

    @abstractmethod
    def _new_run(self) -> Run[Any]:
        """Make the state of a new run."""

    @abstractmethod
    def _prepare(self, trainer: Trainer, pl_module: LightningModule, state: Mapping[str, Any] | None) -> None:
        """Look at the model before the first step."""

    @abstractmethod
    def _try_out(self, trainer: Trainer, pl_module: LightningModule) -> object:
        """Find out before the first step whether anything can be measured."""

    @abstractmethod
    def _take_measurement(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        *,
        is_baseline: bool = False,
        after_epoch: bool = False,
        is_last: bool = False,
        fatal: tuple[type[Exception], ...] = (),
    ) -> None:
        """Measure, judge, publish, remember; errors of the classes ``fatal`` are raised whatever `on_error` is."""

    @abstractmethod
    def _join(self, trainer: Trainer, *, is_awaited: bool = True) -> None:
        """Complete a measurement in the background; unless it is awaited, only if it is done."""

    @abstractmethod
    def _join_after_error(self, trainer: Trainer, guard: Guard) -> None:
        """Complete a measurement in the background while an error of the user's is raised."""

    @abstractmethod
    def _refuse_watchers(self, trainer: Trainer) -> None:
        """Raise `ArgumentError` if something reads this monitor's numbers before they come."""

    @abstractmethod
    def _follow(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute and publish the numbers that are followed between two measurements, if it is time."""

    @abstractmethod
    def _find_event_file(self, trainer: Trainer) -> None:
        """Find the file of events when a fit begins; a collective call."""

    @abstractmethod
    def _lay_out(self, trainer: Trainer) -> None:
        """Lay out the charts of all monitors, if they have changed."""

    @abstractmethod
    def _say_if_slow(self, trainer: Trainer) -> None:
        """Warn once if the measurement of this epoch took longer than its training."""

    @abstractmethod
    def _is_left_out(self, trainer: Trainer) -> bool:
        """Tell whether the current weights were not measured because of `max_overhead`."""

    @abstractmethod
    def _collect(self, trainer: Trainer) -> None:
        """Log what has come from the process beside training."""

    @abstractmethod
    def _draw_the_rest(self, trainer: Trainer, guard: Guard) -> None:
        """Draw the pictures that waited for the end of the fit."""

    @property
    @override
    def state_key(self) -> str:
        values = [getattr(self, name) for name in self.IDENTITY]
        if self._key is None or self._key[0] != values:  # Lightning asks at every hook
            self._key = values, self._generate_state_key(**dict(zip(self.IDENTITY, values, strict=True)))
        return self._key[1]

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        twins = [
            cb for cb in callbacks(trainer) if isinstance(cb, type(self)) and cb.log_key_prefix == self.log_key_prefix
        ]
        if stage == "fit" and len(twins) > 1 and twins[0] is self:
            warn(
                trainer,
                f"{len(twins)} `{type(self).__name__}`s of this Trainer log under the same keys, and overwrite each other's: "
                "give all but one a `log_key_prefix`.",
            )

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if getattr(trainer, "barebones", False):
            warn(trainer, f"`{type(self).__name__}` does nothing under `Trainer(barebones=True)`.")
            return
        self._refuse_watchers(trainer)
        self._find_event_file(trainer)
        is_new, state = self._begin(trainer, pl_module)
        if is_new or state is not None:
            self._run = self._new_run()
        if state is not None:
            state = self._restored(trainer, state)
        self._run.is_restored = state is not None
        memory = state.get("memory") if state is not None and len(self._run.history) else None
        self._or_off(trainer, partial(self._prepare, trainer, pl_module, memory))
        self._agree_to_be_off(trainer)
        ours, every = f"{self.log_key_prefix}{self.GROUP}/", self._schedule.every_n_epochs
        for said in about_watchers(trainer, ours, every, self.THERE, comes_between=self._run.between is not None):
            self._run.guard.warn_once(trainer, said, said)
        self._run.guard.tell(trainer)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run = self._run
        run.clock.start()
        run.is_training = run.is_first_batch = True
        if run.batches is None and self.HAS_BASELINE:
            self._take_measurement(trainer, pl_module, is_baseline=True)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._run.clock.start_epoch()

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        run = self._run
        is_first, run.is_first_batch = run.is_first_batch, False
        batches = run.batches
        if batches is None or batches.is_complete or run.is_off or getattr(trainer, "barebones", False):
            return
        fatal = (ArgumentError,) if is_first else ()  # before the first step an error costs nothing
        take = partial(batches.take, trainer, pl_module, batch, batch_idx)
        is_taken = run.guard.succeeds(trainer, partial(self._or_off, trainer, take), "take a batch", fatal)
        was_taken, is_taken = is_taken, trainer.strategy.reduce_boolean_decision(is_taken, all=True)
        self._agree_to_be_off(trainer)
        if not is_taken and trainer.world_size > 1:
            why = told_by_any(trainer, "" if was_taken else "".join(batches.unfit[-1:]))
            if was_taken:
                batches.drop(f"in another process {why}")
        run.guard.tell(trainer)
        if batches.are_drawn:  # if the data failed on one process, none measures
            run.is_off |= not trainer.strategy.reduce_boolean_decision(batches.is_complete, all=True)
        elif is_first and len(run.history):
            said = f"`{type(self).__name__}` resumes on new batches: curves may jump at step {trainer.global_step}."
            inform(trainer, said)
        if batches.is_complete and self.HAS_BASELINE:
            self._take_measurement(trainer, pl_module, is_baseline=is_first, fatal=fatal)
        elif is_first and is_taken:  # a refusal should come before the first step
            try_out = partial(self._or_off, trainer, partial(self._try_out, trainer, pl_module))
            run.guard.run(trainer, try_out, fatal=fatal)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._join(trainer, is_awaited=False)
        if trainer.is_last_batch:
            self._close_batches(trainer)
        if self._schedule.due_after_batch(trainer, self._run.last_step):
            self._take_measurement(trainer, pl_module)
        self._follow(trainer, pl_module)
        self._collect(trainer)
        self._lay_out(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close_batches(trainer)  # for an epoch that was cut short
        if self._schedule.due_after_epoch(trainer, self._run.last_step):
            self._take_measurement(trainer, pl_module, after_epoch=True)
        self._collect(trainer)
        self._run.guard.run(trainer, partial(self._say_if_slow, trainer), "say what it costs")

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._join(trainer)
        self._run.guard.tell(trainer)
        run = self._run
        if run.batches is not None and not run.is_off and (why := run.batches.why_none()):
            run.guard.warn_once(trainer, "no batch", why)
        if not run.is_off and self._is_left_out(trainer):  # the last state is measured at any cost
            self._take_measurement(trainer, pl_module, after_epoch=True, is_last=True)
        self._draw_the_rest(trainer, self._run.guard)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        guard = self._run.guard.only_warning()  # only the user's error may be raised
        self._join_after_error(trainer, guard)
        self._draw_the_rest(trainer, guard)

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        memory = self._run.memory
        if memory is not None and trainer.is_global_zero and (trouble := memory.write()):
            self._run.guard.warn_once(trainer, "write", trouble)

    @override
    def _state(self) -> dict[str, Any]:
        if self._run.pending is not None:  # a checkpoint has all that was measured before it
            self._join(self._run.pending.trainer)
        return self._run.state_dict()

    def _or_off(self, trainer: Trainer, action: Callable[[], T]) -> T | None:
        """Run an action and return its result; after a refusal, warn once and never measure again in this run."""
        try:
            return action()
        except RefusedError as error:
            self._run.is_off = True
            if self.on_error == "raise":
                raise
            why = str(error).removesuffix(".")
            said = f"cannot measure in this run, and stops trying. {why[:1].upper()}{why[1:]}."
            self._run.guard.warn_once(trainer, "refused", said)
            return None

    def _agree_to_be_off(self, trainer: Trainer) -> None:
        """Stop measuring on all ranks if one has refused; a collective call."""
        self._run.is_off = trainer.strategy.reduce_boolean_decision(self._run.is_off, all=False)

    def _restored(self, trainer: Trainer, state: Any) -> dict[str, Any] | None:
        """Restore a run's state; return it, or ``None`` if it cannot be used."""
        is_ours = isinstance(state, Mapping) and state.get("form") == FORM
        why = "" if is_ours else "which another version wrote"
        try:
            troubles = self._run.load_state_dict(state) if is_ours else []
        except Exception as error:  # whatever is in a damaged state
            why = f"whose history it cannot read ({type(error).__name__}: {error})"
        if not why:
            memory: dict[str, Any] = {}
            restoring = Restoring({"memory": state["memory"]} if "memory" in state else {})
            restoring.part("memory", memory.update)
            for said in troubles + restoring.finish():
                self._run.guard.warn_once(trainer, said, said)
            return {**state, "memory": memory}
        self._run = self._new_run()
        said = f"cannot use its state in the checkpoint, {why}, and {self.BEGIN_ANEW}."
        self._run.guard.warn_once(trainer, "checkpoint", said)
        return None

    def _close_batches(self, trainer: Trainer) -> None:
        run = self._run
        if run.batches is not None and not run.is_off and (few := run.batches.close()):
            run.guard.warn_once(trainer, "num_batches", few)
