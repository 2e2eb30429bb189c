"""`Metric`: a row of the table of metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lightning_ww.drawing.scale import Scale
from lightning_ww.weights.ingredients import Ingredients

Need = Literal["shuffle", "mp_fit", "floor", "initial", "cka", "bootstrap", "previous"]
"""The inputs of metrics that are computed only on request."""


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
