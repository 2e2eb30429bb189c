"""Checks of arguments; the messages for similar faults have similar wording.

A message names the call and the argument as the user typed them, then the expected value. A check returns the value, or
raises `ArgumentError`. In each of them, ``call`` is the class or function that has the argument ``name``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from lightning_ww._errors import ArgumentError

T = TypeVar("T")


def unfit(call: str, name: str, value: object, expected: str) -> ArgumentError:
    """Return the error for an argument that can be shown as it was typed."""
    return ArgumentError(f"`{call}({name}={value!r})`: expected {expected}.")


def unfit_object(call: str, name: str, expected: str, got: str) -> ArgumentError:
    """Return the error for an argument that is too large to be shown, such as a function or a tensor."""
    return ArgumentError(f"`{call}({name}=...)`: expected {expected}, but got {got}.")


def choice(call: str, name: str, value: T, choices: Sequence[T]) -> T:
    """Return the value if it is one of the choices."""
    if value not in choices:
        raise unfit(call, name, value, f"one of {tuple(choices)}")
    return value


def count(call: str, name: str, value: int, *, least: int) -> int:
    """Return the value if it is an integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise unfit(call, name, value, f"an integer of at least {least}")
    return value


def optional_count(call: str, name: str, value: int | None, *, least: int) -> int | None:
    """Return the value if it is ``None`` or an integer of at least ``least``."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise unfit(call, name, value, f"an integer of at least {least}, or `None`")
    return value


def optional_share(call: str, name: str, value: float | None) -> float | None:
    """Return the value if it is ``None``, or a number above 0 and below 1."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < 1):
        raise unfit(call, name, value, "a number above 0 and below 1, such as 0.02, or `None`")
    return value


def number(call: str, name: str, value: float, *, least: float = 0.0, most: float | None = None) -> float:
    """Return the value if it is a number from ``least`` to ``most``; ``None`` means no upper limit."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not value >= least or (most is not None and not value <= most):
        domain = f"of at least {least:g}" if most is None else f"from {least:g} to {most:g}"
        raise unfit(call, name, value, f"a number {domain}")
    return value


def names(call: str, name: str, values: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the names as a tuple if each is known; ``"all"`` stands for all known names."""
    if values == "all":
        return tuple(known)
    chosen = patterns(call, name, values) or ()
    for value in chosen:
        if value not in known:
            raise ArgumentError(
                f"`{call}({name}=...)` does not know {value!r}. Known are 'all' and: {', '.join(known)}."
            )
    return chosen


def instance(call: str, name: str, value: T, kind: type) -> T:
    """Return the value if it is an instance of ``kind``."""
    if not isinstance(value, kind):
        raise unfit(call, name, value, f"a `{kind.__name__}`")
    return value


def having(call: str, name: str, value: T, method: str, expected: str) -> T:
    """Return the value if it is ``None`` or has the method named ``method``."""
    if value is not None and not hasattr(value, method):
        raise unfit(call, name, value, f"{expected}, or `None`")
    return value


def patterns(call: str, name: str, value: str | Sequence[str] | None, *, least: int = 0) -> tuple[str, ...] | None:
    """Return the value as a tuple if it is a string, a list of at least ``least`` strings, or ``None``."""
    if isinstance(value, str | Sequence) and len(value) < least:
        raise ArgumentError(f"`{call}({name}={value!r})`: it is empty. Leave it out, or pass `None`, for all.")
    if isinstance(value, str):
        return (value,)
    if value is not None and (not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value)):
        raise unfit(call, name, value, "a string, a list of strings, or `None`")
    return None if value is None else tuple(value)


def matching(
    call: str,
    name: str,
    value: str | Sequence[str],
    known: Iterable[str],
    what: str,
    *,
    plain: Callable[[str], str] = str,
    strict: bool = True,
) -> set[str]:
    """Return the known names that match one of the patterns.

    Args:
        call: The class or function that has the argument.
        name: The name of the argument.
        value: Names or shell patterns.
        known: All names to choose from.
        what: The kind of thing that the names stand for, as the error calls it: "weight matrix".
        plain: A function from a name to its displayed form; patterns match either form. Default: `str`, the name as it is.
        strict: Whether a pattern that matches nothing is an error. Default: ``True``.
    """
    matched_by_any: set[str] = set()
    known = list(known)
    for pattern in patterns(call, name, value, least=1) or ():
        matched = {
            name for name in known for form in (name, plain(name)) if form == pattern or fnmatchcase(form, pattern)
        }
        if not matched and strict:
            there = ", ".join(f"`{plain(name)}`" for name in known)
            raise ArgumentError(f"`{call}({name}={pattern!r})` matches no {what}. This model has: {there}.")
        matched_by_any |= matched
    return matched_by_any
