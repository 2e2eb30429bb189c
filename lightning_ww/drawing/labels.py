"""The labels of layers where there is little room: short, and all different."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from lightning_ww.drawing.canvas import drawable

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LABEL = 26
"""The most letters of a label; longer names are abbreviated."""


def labels(names: Sequence[str]) -> list[str]:
    """Make a label for each name: if some are long, the part that all begin with is left out, and the rest abbreviated."""
    names = [drawable(name) for name in names]
    parts = [name.split(".") for name in names]
    shared = 0
    if any(len(name) > MAX_LABEL for name in names):
        while len({tuple(part[: shared + 1]) for part in parts}) == 1 and min(map(len, parts)) > shared + 1:
            shared += 1
    short = [shortened(".".join(part[shared:])) for part in parts]
    count, taken = Counter(short), set(short)
    for i, label in enumerate(short):
        if count[label] > 1:  # equal labels are numbered in model order
            marks = (f"#{k}" for k in range(1, len(names) + 1))
            short[i] = next(new for mark in marks if (new := label[: MAX_LABEL - len(mark)] + mark) not in taken)
            taken.add(short[i])
    return short


def shortened(name: str) -> str:
    """Shorten a dotted name to at most `MAX_LABEL` letters: parts in the middle are abbreviated, numbers and the end stay."""
    parts = name.split(".")
    words = [i for i, part in enumerate(parts) if not part.isdigit()] or [0]
    for kept in (2, 1):  # words at the end that stay whole
        short, end = list(parts), words[max(0, len(words) - kept)]
        places = [*range(1, end), *range(min(1, end))]  # the first one last
        for letters in (2, 1):
            for i in places:
                if len(".".join(short)) <= MAX_LABEL:
                    return ".".join(short)
                short[i] = parts[i] if parts[i].isdigit() else _initials(parts[i], letters)
        if len(".".join(short)) <= MAX_LABEL:
            return ".".join(short)
    whole = ".".join(short)
    return f"{whole[: MAX_LABEL // 2]}…{whole[1 - MAX_LABEL // 2 :]}"


def _initials(part: str, letters: int) -> str:
    """Abbreviate a part of a name: ``self_attn`` → ``s_a``, ``model`` → ``mo``, ``attn1`` → ``at1``."""
    words = [re.fullmatch(r"(.*?)(\d*)", word) for word in part.split("_") if word]
    first = letters if len(words) < 2 else 1
    return "_".join(word[1][:first] + word[2] for word in words if word)
