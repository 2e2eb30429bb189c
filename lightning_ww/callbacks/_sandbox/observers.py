"""Those that watch a module without being part of it: other callbacks' hooks, and libraries that log.

They must not see our evaluations. A hook is left out if it belongs to a callback, a logger or a library that logs, as far
as its function shows. Functions of such libraries, which a step calls by itself, do nothing in the thread that evaluates.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning_ww.callbacks._monitor.lightning import callbacks

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import Trainer

LOGGING = (
    "wandb",
    "mlflow",
    "comet_ml",
    "neptune",
    "clearml",
    "aim",
    "swanlab",
    "tensorboard",
    "tensorboardX",
    "trackio",
)
"""Packages that log."""

CALLS: Mapping[str, tuple[tuple[str | None, str], ...]] = {
    "wandb": ((None, "log"), (None, "watch")),
    "wandb.sdk.wandb_run": (("Run", "log"),),
    "mlflow": ((None, "log_"), (None, "set_tag")),
    "comet_ml": (("Experiment", "log_"),),
    "swanlab": ((None, "log"),),
    "trackio": ((None, "log"),),
    "torch.utils.tensorboard.writer": (("SummaryWriter", "add_"),),
    "tensorboardX": (("SummaryWriter", "add_"),),
}
"""By module, the classes (``None``: the module itself) and beginnings of the names of functions that log."""

_lock = threading.Lock()
_silent: list[int] = []  # the threads in which they do nothing, each as often as it asked for that
_replaced: list[tuple[Any, str, Any]] = []  # what puts them back when no thread asks any more


def own_hooks(hooks: Mapping[int, Callable[..., Any]], trainer: Trainer) -> OrderedDict[int, Callable[..., Any]]:
    """The forward hooks of a module without those of callbacks, loggers and libraries that log."""
    watching = {id(owner) for owner in (*callbacks(trainer), *trainer.loggers)}
    return OrderedDict((key, hook) for key, hook in hooks.items() if not _belongs(hook, watching))


@contextmanager
def silent_libraries() -> Iterator[None]:
    """Let the functions by which libraries log do nothing in this thread; other threads log as ever."""
    own = threading.get_ident()
    with _lock:
        if not _silent:
            _replaced.extend(_functions_that_log())
            for owner, name, function in _replaced:
                setattr(owner, name, _silent_here(function))
        _silent.append(own)
    try:
        yield
    finally:
        with _lock:
            _silent.remove(own)
            if not _silent:
                while _replaced:
                    owner, name, function = _replaced.pop()
                    setattr(owner, name, function)


def _functions_that_log() -> Iterator[tuple[Any, str, Any]]:
    """The owner, the name and the function of each of `CALLS` that is loaded."""
    for name, places in CALLS.items():
        module = sys.modules.get(name)
        for kind, beginning in places if module is not None else ():
            owner = module if kind is None else getattr(module, kind, None)
            for attribute, function in list(vars(owner).items()) if owner is not None else ():
                if attribute.startswith(beginning) and callable(function):
                    yield owner, attribute, function


def _silent_here(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which does nothing in silent threads."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        return None if threading.get_ident() in _silent else function(*arguments, **named)

    return call


def _belongs(hook: Callable[..., Any], watching: set[int]) -> bool:
    """Tell whether a hook is a method of one of the watchers, or refers to one, or is a function of a library that logs."""
    function: Any = hook
    held: list[Any] = []
    while isinstance(function, functools.partial):
        held += [*function.args, *function.keywords.values()]
        function = function.func
    held.append(getattr(function, "__self__", None))
    function = getattr(function, "__func__", function)
    for cell in getattr(function, "__closure__", None) or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # empty
            continue
    home = (getattr(function, "__module__", None) or type(function).__module__).split(".")[0]
    return home in LOGGING or any(id(value) in watching or _logs(value) for value in held)


def _logs(value: Any) -> bool:
    return type(value).__module__.split(".")[0] in LOGGING
