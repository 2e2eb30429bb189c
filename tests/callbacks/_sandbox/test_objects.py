"""Which objects are looked into, and what slots they have."""

from __future__ import annotations

import logging
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_ww.callbacks._sandbox.objects import is_foreign, is_foreign_name, is_plain, slots


class Base:
    __slots__ = ("__weakref__", "a")


class Derived(Base):
    __slots__ = "b"


class Open(Base):
    pass


def test_slots_are_those_of_all_bases() -> None:
    assert slots(Derived()) == ("b", "a")
    assert slots(Open()) == ("a",)
    assert slots(3) == ()


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Open(), True),
        (Derived(), True),
        (SimpleNamespace(), True),
        (Fraction(1, 2), True),
        (Open, False),
        (slots, False),
        (torch, False),
        (torch.ones(1), False),
        (logging.getLogger("a"), False),
        ([].append, False),
        (3, False),
    ],
)
def test_the_users_own_objects_are_looked_into(value: Any, plain: bool) -> None:
    assert is_plain(value) == plain


def test_foreign_is_what_a_package_of_the_list_has() -> None:
    assert is_foreign(torch.nn.Linear)
    assert not is_foreign(Open)
    assert is_foreign_name("torch.nn")
    assert not is_foreign_name("torchvision.transforms")
