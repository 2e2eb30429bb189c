"""Many plain records as a few columns, which a checkpoint writes and reads much faster.

A record is what a state dict may hold: dicts with text as keys, lists, numbers, strings, ``None`` and tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def packed(values: Sequence[Any]) -> dict[str, Any]:
    """Pack records of one kind: tensors end to end, numbers in a table, equal records once."""
    if values and all(isinstance(value, Tensor) and value.dtype == values[0].dtype for value in values):
        flat = torch.cat([value.reshape(-1) for value in values])
        return {"tensors": flat, "shapes": _once([list(value.shape) for value in values])}
    if values and all(type(value) is dict for value in values):
        which, kinds = _numbered([list(value) for value in values])
        groups = [[value for value, kind in zip(values, which, strict=True) if kind == k] for k in range(len(kinds))]
        return {"which": which if len(kinds) > 1 else None, "dicts": [_table(group) for group in groups]}
    if not all(map(_is_plain, values)):
        return {"each": list(values)}
    return {"once": _once(values)}


def unpacked(columns: dict[str, Any]) -> list[Any]:
    """The records that were packed."""
    if "tensors" in columns:
        shapes = _repeated(columns["shapes"])
        parts = columns["tensors"].split([math.prod(shape) for shape in shapes])
        return [part.reshape(shape).clone() for part, shape in zip(parts, shapes, strict=True)]
    if "dicts" in columns:
        groups = [iter(_rows(table)) for table in columns["dicts"]]
        which = columns["which"]
        return list(groups[0]) if which is None else [next(groups[kind]) for kind in which]
    return list(columns["each"]) if "each" in columns else _repeated(columns["once"])


def _is_plain(value: Any) -> bool:
    """Tell whether a record has no tensor in it, so that its text tells it from others."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list) else not isinstance(value, Tensor)


def _table(group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Dicts with the same keys: a matrix of those that are floats, a matrix of those that are integers, and the others."""
    keys = list(group[0])
    alike = {key: {type(one[key]) for one in group} for key in keys}
    floats = [key for key in keys if alike[key] == {float}]
    integers = [key for key in keys if alike[key] == {int}]
    return {
        "keys": keys,
        "floats": floats,
        "integers": integers,
        "of floats": torch.tensor([[one[key] for key in floats] for one in group], dtype=torch.float64),
        "of integers": torch.tensor([[one[key] for key in integers] for one in group], dtype=torch.int64),
        "others": {key: packed([one[key] for one in group]) for key in keys if key not in {*floats, *integers}},
    }


def _rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    floats, integers = table["of floats"].tolist(), table["of integers"].tolist()
    others = {key: unpacked(columns) for key, columns in table["others"].items()}
    rows = []
    for i in range(len(floats)):
        values = dict(zip(table["floats"], floats[i], strict=True)) | dict(
            zip(table["integers"], integers[i], strict=True)
        )
        values |= {key: column[i] for key, column in others.items()}
        rows.append({key: values[key] for key in table["keys"]})
    return rows


def _once(values: Sequence[Any]) -> dict[str, Any]:
    """Each different value once, and which of them is where."""
    which, kinds = _numbered(values)
    return {"values": kinds, "which": which if len(kinds) > 1 else None, "count": len(values)}


def _repeated(once: dict[str, Any]) -> list[Any]:
    which = [0] * once["count"] if once["which"] is None else once["which"]
    return [once["values"][kind] for kind in which]


def _numbered(values: Sequence[Any]) -> tuple[list[int], list[Any]]:
    """The number of each value among the different ones, and these."""
    numbers: dict[str, int] = {}
    kinds: list[Any] = []
    which = []
    for value in values:
        name = f"{type(value).__name__} {value!r}"
        if name not in numbers:
            numbers[name] = len(kinds)
            kinds.append(value)
        which.append(numbers[name])
    return which, kinds
