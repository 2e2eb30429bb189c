"""The guard of a run: an error inside a measurement causes a warning, once per cause, and the run continues."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from lightning_ww._errors import LightningWWError
from lightning_ww.callbacks._monitor.lightning import from_all, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lightning_ww.callbacks._monitor.lightning import Trainer

T = TypeVar("T")


class RefusedError(LightningWWError, RuntimeError):
    """A refusal to measure in this run; the message gives the reason and the remedy."""


class PostponedError(LightningWWError, RuntimeError):
    """A measurement that cannot be made yet; it is tried again at the next step."""


class Guard:
    """The warnings of a monitor so far, and its treatment of errors."""

    def __init__(self, call: str, on_error: str) -> None:
        """Name the class ``call`` in messages; ``on_error`` is ``"warn"`` or ``"raise"``."""
        self._call = call
        self._on_error = on_error
        self._warned: set[str] = set()
        self._untold: list[tuple[str, str]] = []  # causes and messages of a process whose warnings nobody sees

    def run(
        self,
        trainer: Trainer,
        action: Callable[[], T],
        what: str = "measure",
        fatal: tuple[type[Exception], ...] = (),
    ) -> T | None:
        """Run an action; return its result, or ``None`` if it failed.

        Args:
            trainer: The Trainer of the run, which continues after an error.
            action: A function without arguments.
            what: The name of the action in the warning. Default: ``"measure"``.
            fatal: Classes of errors that are always raised. Default: none.
        """
        try:
            return action()
        except PostponedError:
            return None
        except Exception as error:
            if self._on_error == "raise" or isinstance(error, fatal):
                raise
            cause = f"{type(error).__name__}: {error}"
            self.warn_once(
                trainer,
                f"{what} {type(error).__name__}",
                f"could not {what} at step {trainer.global_step} ({cause}). Training goes on; errors of this kind "
                "will not be reported again. Set `on_error='raise'` to see where it comes from.",
            )
            return None

    def succeeds(
        self,
        trainer: Trainer,
        action: Callable[[], object],
        what: str,
        fatal: tuple[type[Exception], ...] = (),
    ) -> bool:
        """Run an action as `run` does; return whether it succeeded, whatever its result."""

        def completed() -> bool:
            action()
            return True

        return self.run(trainer, completed, what, fatal) is True

    def warn_once(self, trainer: Trainer, cause: str, message: str) -> None:
        """Warn in the monitor's name, unless there was a warning of this cause before."""
        if cause not in self._warned:
            self._warned.add(cause)
            if trainer.is_global_zero:
                warn(trainer, f"`{self._call}` {message}")
            else:
                self._untold.append((cause, message))

    def has_warned(self, cause: str) -> bool:
        """Tell whether there was a warning of this cause."""
        return cause in self._warned

    def warn_of_several(
        self, trainer: Trainer, causes: Mapping[str, T], sentence: Callable[[list[T]], str]
    ) -> str | None:
        """Warn once of several causes, of those that there was no warning of before.

        Args:
            trainer: The Trainer.
            causes: What each is about, such as a layer, by cause.
            sentence: A function that makes a message of what the new ones are about.

        Returns:
            The message, or ``None`` if there were warnings of all causes before.
        """
        new = {cause: about for cause, about in causes.items() if cause not in self._warned}
        if not new:
            return None
        first, *others = new
        self._warned.update(others)
        said = sentence(list(new.values()))
        self.warn_once(trainer, first, said)
        return said

    def tell(self, trainer: Trainer) -> None:
        """Warn of what only other processes know; a collective call."""
        if trainer.world_size == 1:
            return
        untold, self._untold = self._untold, []
        if not trainer.strategy.reduce_boolean_decision(bool(untold), all=False):
            return
        for rank, told in enumerate(from_all(trainer, untold)):
            for cause, message in told:
                if trainer.is_global_zero:
                    self.warn_once(trainer, cause, f"(process {rank}) {message}")

    def only_warning(self) -> Guard:
        """A guard with these warnings that never raises errors, for use while an error of the user's is raised."""
        quiet = Guard(self._call, "warn")
        quiet._warned = self._warned
        return quiet

    def state_dict(self) -> list[str]:
        """The causes of the warnings so far."""
        return sorted(self._warned)

    def load_state_dict(self, warned: Iterable[str]) -> None:
        """Restore the state that `state_dict` returned."""
        self._warned = {str(cause) for cause in warned}
