"""`Clock`: the wall time of a fit that goes into a monitor, and the shares that bound it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

DRAWING = 1 / 20
"""The share of a fit's wall time that pictures of all monitors may take; what would exceed it waits."""


class Clock:
    """The wall time of a fit, and the parts of it that a monitor spends.

    Attributes:
        spent: The seconds spent measuring, drawing and logging.
        drawn: The seconds of these that were spent drawing.
        last: The seconds of the latest measurement, with all that followed from it.
        followed: The seconds of the latest numbers between two measurements.
    """

    def __init__(self) -> None:
        self.began = self.spent = self.drawn = self.last = self.followed = 0.0
        self._epoch_began = self._spent_before = 0.0
        self._is_within = False

    def start(self) -> None:
        """Begin a fit."""
        self.began, self.spent, self.drawn = time.perf_counter(), 0.0, 0.0

    def start_epoch(self) -> None:
        """Begin an epoch."""
        self._epoch_began, self._spent_before = time.perf_counter(), self.spent

    @property
    def elapsed(self) -> float:
        """The seconds since the fit began."""
        return max(0.0, time.perf_counter() - self.began)

    @property
    def trained_in_epoch(self) -> float:
        """The seconds of this epoch that were not spent on this monitor."""
        return max(0.0, time.perf_counter() - self._epoch_began - (self.spent - self._spent_before))

    @contextmanager
    def spending(self) -> Iterator[float]:
        """Count the time within as spent, once if contexts are nested; yield the time at which it began."""
        began, is_outermost = time.perf_counter(), not self._is_within
        self._is_within = True
        try:
            yield began
        finally:
            if is_outermost:
                self._is_within = False
                self.spent += max(0.0, time.perf_counter() - began)

    @contextmanager
    def leaving_out(self) -> Iterator[None]:
        """Leave out the time within, as of what the user does, from what is counted as spent around it."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent -= max(0.0, time.perf_counter() - began) if self._is_within else 0.0

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Count the time within as spent drawing."""
        with self.spending() as began:
            try:
                yield
            finally:
                self.drawn += max(0.0, time.perf_counter() - began)

    def share(self, began: float) -> float:
        """The share of the fit that was spent so far, including what is in progress since ``began``."""
        spent, whole = self.spent + max(0.0, time.perf_counter() - began), self.elapsed
        return min(spent / whole, 1.0) if whole > 0 else 0.0  # a clock may stand still, or go back


def may_measure(clocks: Sequence[Clock], seconds: float, most: float) -> bool:
    """Tell whether a measurement that takes so many seconds leaves the share of all monitors within ``most``."""
    whole = max(clock.elapsed for clock in clocks)
    return sum(clock.spent for clock in clocks) + seconds <= most * (whole + seconds)


def may_draw(clocks: Sequence[Clock], seconds: float, most: float | None = None) -> bool:
    """Tell whether a picture that takes so many seconds leaves the share of all pictures within `DRAWING`.

    Args:
        clocks: The clocks of all monitors of a Trainer.
        seconds: The time that the picture is expected to take.
        most: The largest share of all that the monitors do. Default: ``None``, any.
    """
    whole = max(clock.elapsed for clock in clocks)
    fits = sum(clock.drawn for clock in clocks) + seconds <= DRAWING * whole
    return fits and (most is None or may_measure(clocks, seconds, most))
