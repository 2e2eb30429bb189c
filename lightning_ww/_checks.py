"""Arguments that are out of their domain are errors in construction, before any training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def choice(call: str, name: str, value: T, choices: Sequence[T]) -> T:
    """The value, if it is one of the choices; ``call`` is the class whose argument it is."""
    if value not in choices:
        raise ValueError(f"`{call}({name}={value!r})`: expected one of {tuple(choices)}.")
    return value


def count(call: str, name: str, value: int, *, least: int) -> int:
    """The value, if it is an integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{call}({name}={value!r})`: expected an integer of at least {least}.")
    return value


def names(call: str, name: str, values: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple, if each is known; ``"all"`` stands for every one."""
    if values == "all":
        return tuple(known)
    chosen = patterns(call, name, values) or ()
    for value in chosen:
        if value not in known:
            raise ValueError(f"`{call}({name}=...)` does not know {value!r}. Known are 'all' and: {', '.join(known)}.")
    return chosen


def instance(call: str, name: str, value: T, kind: type) -> T:
    """The value, if it is of that class."""
    if not isinstance(value, kind):
        raise ValueError(f"`{call}({name}={value!r})`: expected a `{kind.__name__}`.")
    return value


def having(call: str, name: str, value: T, method: str, expected: str) -> T:
    """The value, if it is ``None`` or has that method."""
    if value is not None and not hasattr(value, method):
        raise ValueError(f"`{call}({name}={value!r})`: expected {expected} or `None`.")
    return value


def patterns(call: str, name: str, value: str | Sequence[str] | None, *, least: int = 0) -> tuple[str, ...] | None:
    """The value as a tuple, if it is a string, at least so many strings, or ``None``."""
    if isinstance(value, str | Sequence) and len(value) < least:
        raise ValueError(f"`{call}({name}={value!r})`: it is empty. Leave it out, or pass `None`, for all.")
    if isinstance(value, str):
        return (value,)
    if value is not None and (not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value)):
        raise ValueError(f"`{call}({name}={value!r})`: expected a string, a list of strings, or `None`.")
    return None if value is None else tuple(value)
