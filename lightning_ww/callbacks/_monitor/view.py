"""`View`: what is shown of a measurement. Its keys carry neither group nor prefix; they are added where they meet a logger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Histogram:
    """Values counted in bins that stay as they are, so that one layer's histograms can be laid over each other."""

    values: Array  # each within the outermost edges
    edges: Array  # ascending, shape (bins + 1,)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many values each bin holds."""
        return np.asarray(np.histogram(self.values, bins=self.edges)[0])


@dataclass(frozen=True)
class Picture:
    """A picture that is drawn when somebody looks at it."""

    key: str
    draw: Callable[[], Pixels | None]  # (height, width, 3); None: there is nothing to draw
    when: Literal["now", "end"] = "now"  # "end": only if it is not drawn anew until the fit ends


@dataclass(frozen=True)
class Chart:
    """A chart of TensorBoard's Custom Scalars."""

    title: str
    keys: tuple[str, ...]  # of lines; of a band: the line, its lower and its upper side
    is_band: bool = False


@dataclass(frozen=True)
class View:
    """What is shown of a measurement.

    Keys have one part, a name (``"report"``), or two, a name and what it is of (``"esd/encoder.0"``). They become
    ``ww/report`` and ``ww.esd/encoder.0`` in the group ``ww``.
    """

    scalars: Mapping[str, float] = field(default_factory=dict)  # besides the summary
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)  # in Markdown
    pictures: Sequence[Picture] = ()
    category: str = ""  # what the charts are of
    charts: Sequence[Chart] = ()  # from the top
    layers: Sequence[str] = ()  # whose flags are logged one by one
    files: Mapping[str, Callable[[], None]] = field(
        default_factory=dict
    )  # by name: how each is written beside the logs


def full_key(key: str, group: str, prefix: str) -> str:
    """The key under which loggers get it: ``alpha`` → ``ww/alpha``, ``alpha/encoder.0`` → ``ww.alpha/encoder.0``."""
    name, _, of = key.partition("/")
    return f"{prefix}{group}.{name}/{of}" if of else f"{prefix}{group}/{name}"
