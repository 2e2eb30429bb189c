"""The tree of errors: one base class, and the drawing of it is up to date."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
from helpers.sources import FILES, PACKAGE

from lightning_ww import LightningWWError, _errors


def load_everything() -> None:
    for path in FILES:
        importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))


def ours() -> set[type[Exception]]:
    """All errors that this package defines."""
    modules = [module for name, module in sys.modules.items() if name.startswith("lightning_ww")]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return {c for c in classes if issubclass(c, Exception) and c.__module__.startswith("lightning_ww")}


def below(kind: type[Exception]) -> set[type[Exception]]:
    """The classes of this package that derive from ``kind``, however deep."""
    return {error for error in ours() if issubclass(error, kind) and error is not kind}


def test_the_drawn_tree_has_every_error_of_the_package() -> None:
    load_everything()
    drawn = set(re.findall(r"[├└]── (\w+)", str(_errors.__doc__)))
    assert drawn == {kind.__name__ for kind in below(LightningWWError)}
    described = set(re.findall(r"``(\w+Error)``", str(LightningWWError.__doc__)))
    assert described >= drawn


def test_no_error_of_ours_is_outside_of_the_tree() -> None:
    load_everything()
    assert {kind for kind in ours() if not issubclass(kind, LightningWWError)} == set()


def test_the_tree_is_drawn_as_the_classes_derive() -> None:
    load_everything()
    parents: dict[int, str] = {0: "LightningWWError"}
    for match in re.finditer(r"^ *([│ ]*)[├└]── (\w+)", str(_errors.__doc__), re.MULTILINE):
        depth = 1 + match[1].count("│")
        kind = next(error for error in ours() if error.__name__ == match[2])
        assert parents[depth - 1] in {base.__name__ for base in kind.__bases__}
        parents[depth] = match[2]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_raises_a_plain_error(path: Path) -> None:
    raised = set(re.findall(r"raise (\w+)\(", path.read_text()))
    assert raised.isdisjoint({"Exception", "ValueError", "TypeError", "RuntimeError"})


def test_each_is_what_its_line_says() -> None:
    load_everything()
    lines = {match[1]: match[0] for match in re.finditer(r".*[├└]── (\w+).*", str(_errors.__doc__))}
    for kind in below(LightningWWError):
        said = re.search(r"a (ValueError|RuntimeError)", lines[kind.__name__])
        if said is not None:
            assert issubclass(kind, ValueError if said[1] == "ValueError" else RuntimeError), kind
