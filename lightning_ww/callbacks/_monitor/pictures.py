"""Which pictures are drawn now, and which wait for the end of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.publisher import Publisher
    from lightning_ww.callbacks._monitor.view import Picture


def is_redrawn(number: int, kept: int) -> bool:
    """Whether a picture of the whole history is drawn anew at the measurement of this number.

    At first at each, later at every second, fourth …: whenever a sixteenth has been added to the ``kept`` measurements.
    Each picture stays in TensorBoard's files, and of a thousand the last alone is looked at.
    """
    return number % (1 << max(0, ((kept - 1) // 16).bit_length() - 1)) == 0


class Pictures:
    """What was drawn of a run, and what is left to draw.

    Attributes:
        drawn: By key, the number of the measurement that the latest picture shows.
    """

    def __init__(self) -> None:
        self.drawn: dict[str, int] = {}
        self._left: list[Picture] = []

    def take(self, publisher: Publisher, pictures: Sequence[Picture], number: int) -> None:
        """Draw what is due now; keep the rest, and what failed, for the end.

        Args:
            publisher: Where pictures go.
            pictures: All that the latest measurement offers; what earlier ones offered is out of date.
            number: The measurement's number.
        """
        self._left = list(pictures)
        self._draw(publisher, [picture for picture in pictures if picture.when == "now"], number)

    def finish(self, publisher: Publisher, number: int) -> None:
        """Draw what is left of the measurement of this number."""
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
        """Leave out what is left to draw, which drags reports along."""
        return {**vars(self), "_left": []}
