"""`Metric`: a row of the table of metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lightning_ww.drawing.scale import Scale
from lightning_ww.weights.ingredients import Ingredients

Need = Literal["shuffle", "mp_fit", "floor", "initial", "cka", "bootstrap", "previous", "attention"]
"""The inputs of metrics that are computed only on request."""

SHARE, COUNT = Scale(0, 1), Scale(1, 1e4, is_log=True)
SIGNED_LOG = Scale(-4, 6)
EIGENVALUE = Scale(1e-6, 1e4, is_log=True)
EXPONENT = Scale(1, 9)  # 2 … 6 in trained networks (Martin, Mahoney 2021)
DISTANCE = Scale(0, 0.8)  # at most √ln 2 = 0.83
WEIGHTED = Scale(-8, 16)


@dataclass(frozen=True)
class Metric:
    """A metric: a row of the table."""

    name: str
    meaning: str  # as short as a comment
    scale: Scale  # the colors of its values, equal in every run
    of: Callable[[Ingredients], float | None]  # its value for a layer; `None` if there is none
    summary: Literal["mean", "least", "largest"] | None = None  # how the layers' values become a number of the model
    quantiles: bool = False  # whether its quantiles over the layers are logged
    needs: tuple[Need, ...] = ()
    follows: str | None = None  # another metric; if that has no value, this has none, for the other's reason
    absent: str = ""  # the reason if `of` returns `None`
