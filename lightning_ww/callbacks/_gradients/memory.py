"""The state of a run that only `GradientMonitor` has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lightning_ww.callbacks._monitor.logged_layers import LoggedLayers
from lightning_ww.callbacks._monitor.restoring import Restoring
from lightning_ww.callbacks._monitor.run import Memory

if TYPE_CHECKING:
    from lightning_ww.gradients.reader import GradientReader


@dataclass
class GradientMemory(Memory):
    """The reader of the fit's gradients, and the layers that are logged."""

    reader: GradientReader | None
    logged: LoggedLayers
    num_batches: int = 0  # of this fit
    waiting: list[tuple[Any, Any, Callable[[], object]]] = field(default_factory=list)  # optimizer, its hook, action

    def after_step(self, optimizer: Any, action: Callable[[], object]) -> None:
        """Run an action once, right after the step that an optimizer is about to make, or else at `finish`."""
        if any(other is optimizer for other, _, _ in self.waiting):
            return  # another evaluation of the same step
        register = getattr(optimizer, "register_step_post_hook", None)
        hook = None if register is None else register(lambda *_: self.finish(optimizer))
        self.waiting.append((optimizer, hook, action))

    def finish(self, optimizer: Any = None) -> None:
        """Run the actions that wait for an optimizer's step, or all of them, and remove their hooks."""
        mine = [one for one in self.waiting if optimizer is None or one[0] is optimizer]
        self.waiting = [one for one in self.waiting if one not in mine]
        for _, hook, action in mine:
            if hook is not None:
                hook.remove()
            action()

    def remove_hooks(self) -> None:
        """Remove all hooks from parameters and optimizers."""
        for _, hook, _ in self.waiting:
            if hook is not None:
                hook.remove()
        self.waiting = []
        if self.reader is not None:
            self.reader.remove_hooks()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"logged": self.logged.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> list[str]:
        """Restore the state that `state_dict` returned; return sentences on parts that could not be restored."""
        if not state:
            return []  # lost as a whole, which is said elsewhere
        restoring = Restoring(state)
        restoring.part("logged", self.logged.load_state_dict)
        return restoring.finish()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the reader, which holds the parameters."""
        return {**vars(self), "reader": None, "waiting": []}
