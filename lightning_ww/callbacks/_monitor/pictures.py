"""The choice between pictures that are drawn now, pictures that wait for their turn, and those that wait for the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_ww.callbacks._monitor.view import Picture
from lightning_ww.callbacks._monitor.worker import WorkerLostError
from lightning_ww.drawing.png import Drawn

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.clock import Clock
    from lightning_ww.callbacks._monitor.publisher import Publisher
    from lightning_ww.callbacks._monitor.worker import Worker
    from lightning_ww.history import Moment

EXPECTED, WITH_IMPORTS = 0.1, 0.5
"""The seconds that a kind of picture is expected to take before the first one; the second, while matplotlib is not loaded."""

SENT = 0.005
"""The seconds of training that a picture from another process is expected to take before the first one."""

MOST_REQUESTS = 2
"""The most requests for pictures that wait in another process; further pictures wait for their turn."""

LONGEST_WAIT, AT_ONCE = 60.0, 1e-3
"""The seconds that pictures of another process are waited for when the fit ends; the second, if it never answered."""


def is_redrawn(number: int, kept: int) -> bool:
    """Tell whether a picture of the whole history is drawn again at the measurement of this number.

    At first it is drawn at each measurement, then at every second, fourth …: twice while the number of measurements ``kept``
    doubles. Every picture stays in TensorBoard's files, but usually only the last is looked at.
    """
    return number % (1 << ((kept - 1) // 4).bit_length()) == 0


def draw_all(pictures: Sequence[Picture]) -> list[Drawn | str | None]:
    """Draw pictures and make their files, in another process; of one that fails, return the error in words."""
    return [_drawn(picture) for picture in pictures]


def _drawn(picture: Picture) -> Drawn | str | None:
    try:
        if (drawn := picture.drawn()) is not None:
            _ = drawn.png  # kept, and sent along
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return drawn


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
        self._sent: list[tuple[list[Waiting], Future[list[Drawn | str | None]]]] = []  # to another process

    def take(
        self,
        publisher: Publisher,
        pictures: Sequence[Picture],
        moment: Moment,
        clock: Clock,
        may_draw: Callable[[float], bool] = lambda seconds: True,
        worker: Worker | None = None,
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
            worker: A process that draws them; `collect` logs them. Default: ``None``, they are drawn and logged here.
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
        if worker is not None:
            if worker.num_waiting < MOST_REQUESTS and self._due and may_draw(len(self._due) * SENT):
                self._send(publisher, list(self._due.values()), clock, worker)
                self._due.clear()
            return
        for key, one in list(self._due.items()):
            if may_draw(self._expected(key)):
                del self._due[key]
                self._draw(publisher, [one], clock)

    def collect(self, publisher: Publisher, clock: Clock, *, seconds: float = 0.0) -> None:
        """Log the pictures that have come from another process; draw those that it could not draw here.

        Args:
            publisher: The publisher that logs the pictures.
            clock: The clock that counts the time spent.
            seconds: The longest time to wait for those that have not come. Default: ``0``.
        """
        while self._sent and (seconds or self._sent[0][1].done()):
            those, future = self._sent.pop(0)
            with clock.drawing():
                try:
                    answers = future.result(timeout=seconds or None)
                except Exception as error:
                    answers = [str(error)] * len(those)
                    if isinstance(error, WorkerLostError):
                        said = "draws in the training process from now on, since the process beside it has ended."
                        publisher.guard.warn_once(publisher.trainer, "worker", said)
            for one, answer in zip(those, answers, strict=True):
                if isinstance(answer, str):
                    self._draw(publisher, [one], clock)
                else:
                    self._log(publisher, one, lambda answer=answer: answer, clock)  # type: ignore[misc]

    @property
    def have_come(self) -> bool:
        """Tell whether there are pictures to collect."""
        return bool(self._sent) and self._sent[0][1].done()

    def finish(self, publisher: Publisher, clock: Clock, worker: Worker | None = None) -> None:
        """Draw the pictures that are left of the last measurement, and those of earlier ones whose turn it was."""
        is_ready = worker is not None and worker.is_ready  # its start is not waited for
        self.collect(publisher, clock, seconds=LONGEST_WAIT if is_ready else AT_ONCE)
        last = [one for one in self._left if self.drawn.get(one.picture.key, -1) < one.number]
        shown_later = {one.picture.key for one in last if one.picture.key.startswith("maps")}
        due = [one for one in self._due.values() if one not in last and one.picture.key not in shown_later]
        self._left, self._due = [], {}
        if getattr(publisher.trainer, "fast_dev_run", False):
            return
        if worker is not None and is_ready and due + last and publisher.takes("images"):
            self._send(publisher, due + last, clock, worker)
            self.collect(publisher, clock, seconds=LONGEST_WAIT)
        else:
            self._draw(publisher, due + last, clock)

    def _send(self, publisher: Publisher, those: list[Waiting], clock: Clock, worker: Worker) -> None:
        """Let another process draw; what cannot be sent there is drawn here."""
        try:
            with clock.drawing():
                self._sent.append((those, worker.submit(draw_all, [one.picture for one in those])))
            self.drawn |= {one.picture.key: one.number for one in those}  # nobody need ask for them again
        except Exception:  # such as a function that has no name in a module
            self._draw(publisher, those, clock)

    def _draw(self, publisher: Publisher, those: Sequence[Waiting], clock: Clock) -> None:
        if not publisher.takes("images"):
            return
        for one in those:
            before = clock.drawn
            if self._log(publisher, one, one.picture.drawn, clock):
                self._seconds[_kind(one.picture.key)] = clock.drawn - before

    def _log(self, publisher: Publisher, one: Waiting, draw: Callable[[], Drawn | None], clock: Clock) -> bool:
        with clock.drawing():
            is_drawn = publisher.image(one.picture.key, draw, one.step)
        if is_drawn:
            self.drawn[one.picture.key] = one.number
        elif self.drawn.get(one.picture.key) == one.number:  # it was expected from another process
            del self.drawn[one.picture.key]
        return is_drawn

    def _expected(self, key: str) -> float:
        """The seconds that a picture will take."""
        return self._seconds.get(_kind(key), EXPECTED if "matplotlib.figure" in sys.modules else WITH_IMPORTS)

    def __getstate__(self) -> dict[str, object]:
        """Leave out the pictures that are left to draw, since they refer to whole reports."""
        return {**vars(self), "_due": {}, "_left": [], "_sent": []}


def _kind(key: str) -> str:
    return key.partition("/")[0]
