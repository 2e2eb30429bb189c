"""The time of a fit that goes into a monitor, and what may still be spent."""

from __future__ import annotations

import time

import pytest

from lightning_ww.callbacks._monitor.clock import DRAWING, Clock, may_draw, may_measure


def clock(elapsed: float, *, spent: float = 0.0, drawn: float = 0.0) -> Clock:
    """The clock of a fit that began so many seconds ago."""
    made = Clock()
    made.start()
    made.began -= elapsed
    made.spent, made.drawn = spent, drawn
    return made


def test_the_clock_counts_what_is_done_within() -> None:
    one = Clock()
    one.start()
    one.start_epoch()
    with one.spending() as began:
        time.sleep(0.05)
        assert 0 < one.share(began) <= 1
    time.sleep(0.05)
    assert 0.05 <= one.spent < one.elapsed
    assert 0.04 < one.trained_in_epoch < one.elapsed


def test_what_the_user_does_within_is_left_out() -> None:
    one = Clock()
    one.start()
    with one.spending():
        time.sleep(0.02)
        with one.leaving_out():
            time.sleep(0.1)
    assert 0.02 <= one.spent < 0.1
    before = one.spent
    with one.leaving_out():  # nothing is counted here
        time.sleep(0.01)
    assert one.spent == before


def test_what_is_drawn_within_is_counted_once_as_spent() -> None:
    one = Clock()
    one.start()
    with one.spending():
        for _ in range(2):
            with one.drawing():
                time.sleep(0.02)
        time.sleep(0.02)
    assert 0.04 <= one.drawn < one.spent <= one.elapsed
    with pytest.raises(ZeroDivisionError), one.spending():
        _ = 1 / 0
    before = one.spent
    with one.spending():
        time.sleep(0.02)
    assert one.spent >= before + 0.02  # an error has not left it open


@pytest.mark.parametrize("times", [[5.0] * 19, [float(19 - i) for i in range(19)]])
def test_a_clock_that_stands_still_or_goes_back_gives_a_share(
    times: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(times)
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    one = Clock()
    one.start()
    one.start_epoch()
    with one.spending() as began:
        assert 0 <= one.share(began) <= 1
    assert one.trained_in_epoch >= 0
    assert not may_draw([one], 0.1)


def test_a_measurement_fits_while_the_share_of_all_monitors_stays_within() -> None:
    clocks = [clock(100, spent=1.0), clock(99, spent=0.5)]
    assert may_measure(clocks, 0.5, 0.02)  # (1.5 + 0.5) / (100 + 0.5)
    assert not may_measure(clocks, 0.6, 0.02)


def test_a_picture_fits_while_all_pictures_take_a_twentieth() -> None:
    clocks = [clock(100, drawn=3.0), clock(100, drawn=1.5)]
    assert may_draw(clocks, 0.4)
    assert not may_draw(clocks, 0.6)
    assert 100 * DRAWING == 5
    assert not may_draw([clock(100, spent=1.9)], 0.4, most=0.02)
