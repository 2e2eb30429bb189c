"""The restoration of a saved state, part by part: what cannot be read is left out, and said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Restoring:
    """A saved state that another version may have written, or that is damaged.

    Args:
        state: The state, as it was found.

    Attributes:
        troubles: A sentence for each part that is missing, unknown or unreadable, which goes on after the monitor's name.
    """

    def __init__(self, state: Any) -> None:
        self._state: Mapping[str, Any] = state if isinstance(state, Mapping) else {}
        self.troubles: list[str] = []
        self._known: set[str] = set()

    def part(self, name: str, load: Callable[[Any], object]) -> bool:
        """Load a part by a function; return whether that succeeded."""
        self._known.add(name)
        if name not in self._state:
            self.troubles.append(f"finds no `{name}` in its state in the checkpoint, and begins it anew.")
            return False
        try:
            load(self._state[name])
        except Exception as error:  # whatever is in a state of another version
            self.troubles.append(
                f"cannot read `{name}` of its state in the checkpoint, and begins it anew ({type(error).__name__}: {error})."
            )
            return False
        return True

    def finish(self) -> list[str]:
        """The sentences, with one on the parts that are not known."""
        if others := sorted(str(name) for name in self._state.keys() - self._known):
            self.troubles.append(f"ignores {', '.join(f'`{name}`' for name in others)} of its state in the checkpoint.")
        return self.troubles
