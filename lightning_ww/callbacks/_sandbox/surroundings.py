"""The objects around a module that a step may change: optimizers, schedules, metrics, data, classes and globals."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from types import CellType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

from lightning_ww._threads import others_draw, others_train
from lightning_ww.callbacks._monitor.lightning import callbacks, training_loaders
from lightning_ww.callbacks._sandbox.objects import is_foreign, is_foreign_name, is_plain, slots
from lightning_ww.callbacks._sandbox.rollback import MANY, MOST, Namespace

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import LightningModule, Trainer

MOST_HOLDERS = 256
"""The most data sets, callbacks and objects inside these whose attributes are restored."""

SMALL_ARRAY = 2**20
"""The most bytes of a tensor or an array among these attributes; larger ones are assumed to be the data themselves."""

SIMPLE = (bool, int, float, str)
"""The types of numbers and words."""


def objects_around(trainer: Trainer, pl_module: LightningModule, *functions: Callable[..., Any] | None) -> list[Any]:
    """The objects that are restored after an evaluation, besides the module.

    Classes and globals belong to the process: they are left out while another thread trains.

    Args:
        trainer: The Trainer.
        pl_module: The module.
        functions: The user's own functions that are evaluated.
    """
    found: list[Any] = [
        [optimizer.param_groups for optimizer in trainer.optimizers],
        [_schedule(config.scheduler) for config in trainer.lr_scheduler_configs],
        trainer.callback_metrics,
    ]
    holders = [*callbacks(trainer), getattr(trainer, "datamodule", None)]
    for loader in training_loaders(trainer):
        holders += [getattr(loader, name, None) for name in ("dataset", "sampler", "batch_sampler", "collate_fn")]
    found += [Settings(holder) for holder in _with_those_inside(holders)]
    found.append(Numbers(trainer))
    if not others_train():
        kinds = {kind: None for part in pl_module.modules() for kind in type(part).__mro__ if not is_foreign(kind)}
        methods = [value for kind in kinds for value in vars(kind).values() if isinstance(value, FunctionType)]
        kept = [value for part in pl_module.modules() for value in list(vars(part).values())]  # functions among them
        found += [Attributes(kind) for kind in kinds]
        found += [_defaults(method) for method in methods]
        found += [Cells(function) for function in _own(kept)]
        for function in _with_those_they_name((type(pl_module).training_step, *functions, *kept)):
            found += [Globals(function), Settings(function), _defaults(function)]
    return found


def _with_those_inside(holders: Iterable[Any]) -> list[Any]:
    """The data sets and the user's own objects among these and in their attributes, at any depth, `MOST_HOLDERS` in all."""
    found: dict[int, Any] = {}
    waiting = deque(holders)
    while waiting and len(found) < MOST_HOLDERS:
        holder = waiting.popleft()
        is_one = isinstance(holder, Dataset | Sampler) or (
            is_plain(holder) and not isinstance(holder, Tensor | nn.Module)
        )
        if id(holder) in found or not is_one:
            continue
        found[id(holder)] = holder
        slotted = [getattr(holder, name) for name in slots(holder) if hasattr(holder, name)]
        for value in (*getattr(holder, "__dict__", {}).values(), *slotted):
            waiting += value if isinstance(value, list | tuple) and len(value) <= MANY else [value]
    return list(found.values())


def _own(values: Iterable[Any]) -> list[FunctionType]:
    """The user's functions among these, each once."""
    functions = (getattr(value, "__func__", value) for value in values)
    return list(
        dict.fromkeys(f for f in functions if isinstance(f, FunctionType) and not is_foreign_name(f.__module__))
    )


def _with_those_they_name(values: Iterable[Any]) -> list[FunctionType]:
    """The user's functions among these, and those among the globals that they name."""
    own = _own(values)
    return _own([*own, *(f.__globals__.get(name) for f in own for name in f.__code__.co_names)])


def _defaults(function: FunctionType) -> list[Any]:
    """The defaults of a function's arguments that can be changed."""
    return [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


class _InDict(Namespace):
    """Names that are the keys of a dict."""

    _home: dict[str, Any]

    def set(self, name: str, value: Any) -> None:
        """Give a name a value."""
        self._home[name] = value

    def remove(self, name: str) -> None:
        """Remove a name."""
        del self._home[name]


class Settings(_InDict):
    """The attributes of a data set, a sampler, a data module or a callback, apart from the data."""

    def __init__(self, owner: Any) -> None:
        self._owner, self._home = owner, getattr(owner, "__dict__", {})

    def values(self) -> dict[str, Any]:
        """The numbers, words, generators, small containers and small arrays among the attributes."""
        slotted = {name: getattr(self._owner, name) for name in slots(self._owner) if hasattr(self._owner, name)}
        return {name: value for name, value in (self._home | slotted).items() if _is_small(value)}

    def set(self, name: str, value: Any) -> None:
        """Give an attribute a value."""
        if name in slots(self._owner):
            object.__setattr__(self._owner, name, value)
        else:
            super().set(name, value)

    def remove(self, name: str) -> None:
        """Remove an attribute."""
        if name in slots(self._owner):
            object.__delattr__(self._owner, name)
        else:
            super().remove(name)


class Numbers(Settings):
    """The numbers and words among the attributes of a Trainer, also those that a step gives it."""

    def values(self) -> dict[str, Any]:
        """The numbers and words by name."""
        return {name: value for name, value in self._home.items() if value is None or isinstance(value, SIMPLE)}


class Cells(Namespace):
    """The variables of the enclosing functions that a function uses, and that are no functions, classes or modules."""

    def __init__(self, function: FunctionType) -> None:
        self._cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))

    def values(self) -> dict[str, Any]:
        """The variables by name."""
        there = {name: cell.cell_contents for name, cell in self._cells.items() if not _is_empty(cell)}
        return {name: value for name, value in there.items() if _is_state(name, value)}

    def set(self, name: str, value: Any) -> None:
        """Give a variable a value."""
        self._cells[name].cell_contents = value

    def remove(self, name: str) -> None:
        """Remove a variable."""
        del self._cells[name].cell_contents


class Attributes(Namespace):
    """The attributes of a class that are no functions."""

    def __init__(self, owner: type) -> None:
        self._owner = owner

    def values(self) -> dict[str, Any]:
        """The attributes by name."""
        return {name: value for name, value in vars(self._owner).items() if _is_state(name, value)}

    def set(self, name: str, value: Any) -> None:
        """Give an attribute a value."""
        setattr(self._owner, name, value)

    def remove(self, name: str) -> None:
        """Remove an attribute."""
        delattr(self._owner, name)


class Globals(_InDict):
    """The globals that a function names, and that are no functions, classes or modules."""

    def __init__(self, function: FunctionType) -> None:
        self._names = function.__code__.co_names
        self._home = function.__globals__

    def values(self) -> dict[str, Any]:
        """The globals by name."""
        there = {name: self._home[name] for name in self._names if name in self._home}
        return {name: value for name, value in there.items() if _is_state(name, value)}


def _is_empty(cell: CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # the variable has no value yet
        return True
    return False


def _is_small(value: Any) -> bool:
    if isinstance(value, list | dict | set | deque):
        return len(value) <= MOST
    if isinstance(value, Tensor | np.ndarray):
        return int(value.nbytes) <= SMALL_ARRAY
    if isinstance(value, torch.Generator | np.random.Generator | np.random.RandomState | random.Random):
        return not others_draw()
    return value is None or isinstance(value, SIMPLE)


def _is_state(name: str, value: Any) -> bool:
    is_code = callable(value) or isinstance(value, ModuleType | property | classmethod | staticmethod)
    return not name.startswith("__") and not is_code and type(value).__module__ != "abc"


def _schedule(scheduler: Any) -> list[Any]:
    """The attributes of a learning-rate scheduler, and of the schedulers that it is made of."""
    return [vars(scheduler), *(_schedule(part) for part in getattr(scheduler, "_schedulers", ()))]
