"""Objects of the user's own, and those of packages that are not looked into."""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

FOREIGN = {
    "torch",
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "lightning_ww",
    "logging",
    "threading",
    "builtins",
}
"""Packages whose objects are not restored: trainers, loaders, optimizers, loggers."""


def is_foreign(kind: type) -> bool:
    """Tell whether a class is of a package in `FOREIGN`."""
    return is_foreign_name(kind.__module__)


def is_foreign_name(module: str) -> bool:
    """Tell whether a module of code is in a package in `FOREIGN`."""
    return module.split(".")[0] in FOREIGN


def is_plain(value: Any) -> bool:
    """Tell whether this is an object of the user's, or of a library that is not in `FOREIGN`, with attributes to restore."""
    if isinstance(value, type | ModuleType | FunctionType | MethodType | BuiltinFunctionType):
        return False
    return (hasattr(value, "__dict__") or bool(slots(value))) and not is_foreign(type(value))


_SLOTS: WeakKeyDictionary[type, tuple[str, ...]] = WeakKeyDictionary()


def slots(value: Any) -> tuple[str, ...]:
    """The names of an object's slots, including those of its base classes."""
    if (known := _SLOTS.get(kind := type(value))) is not None:
        return known
    names: list[str] = []
    for base in kind.__mro__:
        named = vars(base).get("__slots__", ())
        names += [named] if isinstance(named, str) else list(named)
    own = tuple(name for name in names if name not in ("__dict__", "__weakref__") and not name.startswith("__"))
    return _SLOTS.setdefault(kind, own)
