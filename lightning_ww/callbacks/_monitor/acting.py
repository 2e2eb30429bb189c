"""`Acting`: what follows when flags rise: a warning, an alert, lines of `events.jsonl`, and the user's own function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from lightning_ww import _checks
from lightning_ww.callbacks._monitor.event_file import NAME, EventFile, flag_event
from lightning_ww.callbacks._monitor.sentences import about_flags
from lightning_ww.triggers.diagnosis import Flag

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.guard import Guard
    from lightning_ww.callbacks._monitor.lightning import Trainer
    from lightning_ww.callbacks._monitor.publisher import Publisher
    from lightning_ww.callbacks._monitor.run import Run
    from lightning_ww.history import Moment

OnFlag = Callable[[Any, Any, tuple[Flag, ...]], object]
"""A function ``(trainer, pl_module, flags)``."""


class Acting:
    """A monitor that acts on its flags."""

    _run: Run[Any]
    _event_file: EventFile
    on_flag: OnFlag | None

    def _set_on_flag(self, on_flag: OnFlag | None) -> None:
        expected = "a function `(trainer, pl_module, flags)`"
        self.on_flag = _checks.having(type(self).__name__, "on_flag", on_flag, "__call__", expected)
        self._event_file = EventFile(None)

    def _publisher(self, trainer: Trainer, guard: Guard, step: int) -> Publisher:
        """The loggers at a step."""
        raise NotImplementedError

    def _find_event_file(self, trainer: Trainer) -> None:
        """Find the file of events when a fit begins; a collective call."""
        self._event_file = EventFile.of(trainer)

    def _act(self, trainer: Trainer, moment: Moment) -> None:
        """Act on the flags that have risen at a measurement; the user's own function is called on all processes."""
        run, risen = self._run, self._run.risen
        for name in dict.fromkeys(flag.trigger for flag in risen):
            causes = {f"{name} {flag.layer}": flag for flag in risen if flag.trigger == name}
            said = run.guard.warn_of_several(trainer, causes, partial(about_flags, moment.step))
            if said and trainer.is_global_zero:
                self._publisher(trainer, run.guard, moment.logged_step).alert(f"lightning-ww: {name}", said)
        stands = run.diagnosis.from_start if moment.number == 0 else ()
        events = [flag_event("from_start", moment, flag) for flag in stands]
        events += [flag_event("flag", moment, flag) for flag in risen]
        run.guard.run(trainer, partial(self._event_file.append, events), f"write `{NAME}`")
        if self.on_flag is not None and risen:
            with run.clock.leaving_out():
                run.guard.run(
                    trainer, partial(self.on_flag, trainer, trainer.lightning_module, risen), "call `on_flag`"
                )
