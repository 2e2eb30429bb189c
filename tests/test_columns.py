"""Records come back from columns as they were."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ww._columns import packed, unpacked

PLAIN = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=3)
RECORDS = st.dictionaries(st.sampled_from("abcd"), PLAIN | st.lists(PLAIN, max_size=3), max_size=4)


def same(one: Any, other: Any) -> bool:
    """Tell whether two records are equal, types and the order of keys included."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@given(st.lists(RECORDS, max_size=6))
@settings(max_examples=100, deadline=None)
def test_plain_records_come_back(records: list[Any]) -> None:
    assert same(unpacked(packed(records)), records)


@pytest.mark.parametrize(
    "records",
    [
        [{"a": torch.ones(2, 3), "b": {"c": 1.0}}, {"a": torch.zeros(0, 3), "b": {"c": 2.0, "d": 1}}],
        [{"a": torch.ones(2)}, {"a": torch.ones(2, dtype=torch.float64)}],
        [{"a": 1.0}, {"a": 1}, {"a": True}, {"a": None}],
        [{"a": torch.tensor(1.0)}],
        [],
        [torch.ones(3), torch.ones(1)],
    ],
)
def test_tensors_and_mixed_types_come_back_also_from_a_safe_load(records: list[Any]) -> None:
    file = io.BytesIO()
    torch.save(packed(records), file)
    file.seek(0)
    assert same(unpacked(torch.load(file, weights_only=True)), records)
