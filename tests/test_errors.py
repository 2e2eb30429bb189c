"""The tree of errors: one base class, and the drawing of it is up to date."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from helpers.sources import FILES, PACKAGE

from lightning_ww import LightningWWError, _errors


def load_everything() -> None:
    for path in FILES:
        importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))


def below(kind: type[Exception]) -> set[type[Exception]]:
    found = {one for one in kind.__subclasses__() if one.__module__.startswith("lightning_ww")}
    return found | {deeper for one in found for deeper in below(one)}


def test_the_drawn_tree_has_every_error_of_the_package() -> None:
    load_everything()
    drawn = set(re.findall(r"[├└]── (\w+)", str(_errors.__doc__)))
    assert drawn == {kind.__name__ for kind in below(LightningWWError)}
    described = set(re.findall(r"``(\w+Error)``", str(LightningWWError.__doc__)))
    assert described >= drawn


def test_no_error_of_ours_is_outside_of_the_tree() -> None:
    load_everything()
    ours = {kind for kind in below(Exception) if not issubclass(kind, LightningWWError)}
    assert ours <= {LightningWWError}


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
