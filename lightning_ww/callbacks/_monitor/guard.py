"""An error inside a measurement stays there: it warns once per cause, and the run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from lightning_ww._errors import LightningWWError
from lightning_ww.callbacks._monitor.lightning import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lightning_ww.callbacks._monitor.lightning import Trainer

T = TypeVar("T")


class RefusedError(LightningWWError, RuntimeError):
    """Nothing can be measured in this run; the message says why, and what can be done."""


class Guard:
    """What a monitor warned of so far, and what it does about errors."""

    def __init__(self, call: str, on_error: str) -> None:
        """``call`` is the class that messages name; ``on_error`` is ``"warn"`` or ``"raise"``."""
        self._call = call
        self._on_error = on_error
        self._warned: set[str] = set()

    def run(
        self,
        trainer: Trainer,
        action: Callable[[], T],
        what: str = "measure",
        fatal: tuple[type[Exception], ...] = (),
    ) -> T | None:
        """What the action returns, or ``None`` if it failed.

        Args:
            trainer: The Trainer whose run goes on.
            action: What is tried.
            what: What the action does, for the warning.
            fatal: Errors that are raised all the same.
        """
        try:
            return action()
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

    def warn_once(self, trainer: Trainer, cause: str, message: str) -> None:
        """Warn, in the monitor's name, unless that was warned of before."""
        if cause not in self._warned:
            self._warned.add(cause)
            warn(trainer, f"`{self._call}` {message}")

    def only_warning(self) -> Guard:
        """The same, but errors are never raised: where one of the user's is on its way."""
        quiet = Guard(self._call, "warn")
        quiet._warned = self._warned
        return quiet

    def state_dict(self) -> list[str]:
        """The causes of the warnings so far."""
        return sorted(self._warned)

    def load_state_dict(self, warned: Iterable[str]) -> None:
        """Take up what `state_dict` gave."""
        self._warned = set(warned)
