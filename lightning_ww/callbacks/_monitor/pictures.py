"""The choice between pictures that are drawn now, pictures that wait for their turn, and those that wait for the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.clock import Clock
    from lightning_ww.callbacks._monitor.publisher import Publisher
    from lightning_ww.callbacks._monitor.view import Picture
    from lightning_ww.history import Moment

EXPECTED, WITH_IMPORTS = 0.1, 0.5
"""The seconds that a kind of picture is expected to take before the first one; the second, while matplotlib is not loaded."""


def is_redrawn(number: int, kept: int) -> bool:
    """Tell whether a picture of the whole history is drawn again at the measurement of this number.

    At first it is drawn at each measurement, then at every second, fourth …: twice while the number of measurements ``kept``
    doubles. Every picture stays in TensorBoard's files, but usually only the last is looked at.
    """
    return number % (1 << ((kept - 1) // 4).bit_length()) == 0


@dataclass(frozen=True)
class Waiting:
    """A picture of a measurement that was not drawn yet."""

    picture: Picture
    number: int  # of the measurement
    step: int  # at which it is logged


class Pictures:
    """The pictures of a run that were drawn, and those that are left to draw.

    Attributes:
        drawn: The number of the measurement that the latest picture shows, by the picture's key.
    """

    def __init__(self) -> None:
        self.drawn: dict[str, int] = {}
        self._due: dict[str, Waiting] = {}  # those whose turn it was, by key
        self._left: list[Waiting] = []  # those of the latest measurement
        self._seconds: dict[str, float] = {}  # the time that the latest picture took, by kind

    def take(
        self,
        publisher: Publisher,
        pictures: Sequence[Picture],
        moment: Moment,
        clock: Clock,
        may_draw: Callable[[float], bool] = lambda seconds: True,
    ) -> None:
        """Draw the pictures that are due, as far as there is time; the others wait for their turn, or for the end.

        Args:
            publisher: The publisher that logs the pictures.
            pictures: All pictures of the latest measurement; they replace earlier ones of equal key that wait for the end,
                and, if they are due themselves, also those that are due.
            moment: The time of that measurement.
            clock: The clock that counts the time spent drawing.
            may_draw: A function that says whether there is time for a picture, from the seconds it is expected to take.
                Default: always.
        """
        self._left = [Waiting(picture, moment.number, moment.logged_step) for picture in pictures]
        self._due |= {one.picture.key: one for one in self._left if one.picture.when == "now"}
        if not publisher.takes("images"):
            self._due.clear()
            return
        if getattr(publisher.trainer, "fast_dev_run", False):  # one of each kind, at any cost
            first = {_kind(key): one for key, one in reversed(self._due.items())}
            self._due.clear()
            self._draw(publisher, list(first.values()), clock)
        for key, one in list(self._due.items()):
            if may_draw(self._expected(key)):
                del self._due[key]
                self._draw(publisher, [one], clock)

    def finish(self, publisher: Publisher, clock: Clock) -> None:
        """Draw the pictures that are left of the last measurement, and those of earlier ones whose turn it was."""
        last = [one for one in self._left if self.drawn.get(one.picture.key, -1) < one.number]
        shown_later = {one.picture.key for one in last if one.picture.key.startswith("maps")}
        due = [one for one in self._due.values() if one not in last and one.picture.key not in shown_later]
        self._left, self._due = [], {}
        if not getattr(publisher.trainer, "fast_dev_run", False):
            self._draw(publisher, due + last, clock)

    def _draw(self, publisher: Publisher, those: Sequence[Waiting], clock: Clock) -> None:
        if not publisher.takes("images"):
            return
        for one in those:
            before, key = clock.drawn, one.picture.key
            with clock.drawing():
                is_drawn = publisher.image(key, one.picture.draw, one.step)
            if is_drawn:
                self.drawn[key] = one.number
                self._seconds[_kind(key)] = clock.drawn - before

    def _expected(self, key: str) -> float:
        """The seconds that a picture will take."""
        return self._seconds.get(_kind(key), EXPECTED if "matplotlib.figure" in sys.modules else WITH_IMPORTS)

    def __getstate__(self) -> dict[str, object]:
        """Leave out the pictures that are left to draw, since they refer to whole reports."""
        return {**vars(self), "_due": {}, "_left": []}


def _kind(key: str) -> str:
    return key.partition("/")[0]
