"""`View`: the content that is shown of a measurement. Its keys have no group or prefix; the publisher adds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from lightning_ww.drawing.png import Drawn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Histogram:
    """Values counted in fixed bins, so that a layer's histograms of different times can be compared."""

    values: Array  # each within the outermost edges
    edges: Array  # ascending, shape (bins + 1,)

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of values in each bin."""
        return np.asarray(np.histogram(self.values, bins=self.edges)[0])


@dataclass(frozen=True)
class Picture:
    """A picture that is drawn only when a logger takes it."""

    key: str
    draw: Callable[[], Pixels | None]  # (height, width, 3); None: there is nothing to draw
    when: Literal["now", "end"] = "now"  # "end": at the end of the fit, if no newer one replaces it

    def drawn(self) -> Drawn | None:
        """Draw it."""
        pixels = self.draw()
        return None if pixels is None else Drawn(pixels)


@dataclass(frozen=True)
class Chart:
    """A chart of TensorBoard's Custom Scalars."""

    title: str
    keys: tuple[str, ...]  # one for each line; of a band: the line, its lower and its upper side
    is_band: bool = False


@dataclass(frozen=True)
class View:
    """The content that is shown of a measurement.

    Keys are a name (``"report"``), or a name and its subject (``"esd/encoder.0"``). In the group ``ww`` they become
    ``ww/report`` and ``ww.esd/encoder.0``.
    """

    scalars: Mapping[str, float] = field(default_factory=dict)  # in addition to the summary
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)  # in Markdown
    pictures: Sequence[Picture] = ()
    category: str = ""  # the subject of the charts
    charts: Sequence[Chart] = ()  # from the top
    layers: Sequence[str] = ()  # those whose flags are logged one by one
    files: Mapping[str, Callable[[], str | None]] = field(
        default_factory=dict
    )  # functions that write the files next to the logs, by file name; they may return a warning


def full_key(key: str, group: str, prefix: str) -> str:
    """The key for loggers: ``alpha`` → ``ww/alpha``, ``alpha/encoder.0`` → ``ww.alpha/encoder.0``."""
    name, _, of = key.partition("/")
    return f"{prefix}{group}.{name}/{of}" if of else f"{prefix}{group}/{name}"
