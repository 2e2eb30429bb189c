"""The choice between pictures that are drawn now, and pictures that wait for the end of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.publisher import Publisher
    from lightning_ww.callbacks._monitor.view import Picture


def is_redrawn(number: int, kept: int) -> bool:
    """Tell whether a picture of the whole history is drawn again at the measurement of this number.

    At first it is drawn at each measurement, later at every second, fourth …: whenever the ``kept`` measurements have
    grown by a sixteenth. Every picture stays in TensorBoard's files, but usually only the last is looked at.
    """
    return number % (1 << max(0, ((kept - 1) // 16).bit_length() - 1)) == 0


class Pictures:
    """The pictures of a run that were drawn, and those that are left to draw.

    Attributes:
        drawn: The number of the measurement that the latest picture shows, by the picture's key.
    """

    def __init__(self) -> None:
        self.drawn: dict[str, int] = {}
        self._left: list[Picture] = []

    def take(self, publisher: Publisher, pictures: Sequence[Picture], number: int) -> None:
        """Draw the pictures that are due now; keep the others, and those that failed, for the end.

        Args:
            publisher: The publisher that logs the pictures.
            pictures: All pictures of the latest measurement; those of earlier measurements are out of date.
            number: The measurement's number.
        """
        self._left = list(pictures)
        self._draw(publisher, [picture for picture in pictures if picture.when == "now"], number)

    def finish(self, publisher: Publisher, number: int) -> None:
        """Draw the pictures that are left of the measurement of this number."""
        left, self._left = self._left, []
        self._draw(publisher, [picture for picture in left if self.drawn.get(picture.key) != number], number)

    def _draw(self, publisher: Publisher, pictures: Sequence[Picture], number: int) -> None:
        if not publisher.takes("images"):
            return
        if getattr(publisher.trainer, "fast_dev_run", False):  # one of each kind
            first = {picture.key.partition("/")[0]: picture for picture in reversed(pictures)}
            pictures = list(first.values())
        for picture in pictures:
            if publisher.image(picture.key, picture.draw):
                self.drawn[picture.key] = number

    def __getstate__(self) -> dict[str, object]:
        """Leave out the pictures that are left to draw, since they refer to whole reports."""
        return {**vars(self), "_left": []}
