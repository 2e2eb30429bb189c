"""Which pictures are drawn now, and which wait for the end of the fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawn import Deep, fit, images
from helpers.networks import Classifier, data, quiet_trainer
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_ww.callbacks import CurvatureMonitor, WeightSpectrumMonitor
from lightning_ww.callbacks._monitor.clock import Clock
from lightning_ww.callbacks._monitor.pictures import EXPECTED, WITH_IMPORTS, Pictures, is_redrawn
from lightning_ww.callbacks._monitor.view import Picture, View
from lightning_ww.callbacks._monitor.worker import WorkerLostError
from lightning_ww.history import Moment

PIXELS = np.zeros((1, 1, 3), dtype=np.uint8)


class Taker:
    """In place of a publisher: remembers what it was given to draw, and fails where it is told to."""

    def __init__(self, *failing: str, fast: bool = False) -> None:
        self.trainer: Any = type("Trainer", (), {"fast_dev_run": fast})()
        self.failing, self.taken, self.steps = failing, list[str](), list[int]()
        self.said: list[str] = []

    def takes(self, kind: str) -> bool:
        return kind == "images"

    def image(self, key: str, draw: Callable[[], Any], step: int) -> bool:
        self.taken.append(key)
        self.steps.append(step)
        return key not in self.failing and draw() is not None

    @property
    def guard(self) -> Any:
        return self

    def warn_once(self, trainer: Any, cause: str, message: str) -> None:
        self.said.append(cause)


def offered(**when: Any) -> list[Picture]:
    return [Picture(key.replace("_", "/"), lambda: PIXELS, at) for key, at in when.items()]


def at(number: int) -> Moment:
    return Moment(number, 10 * number, 10 * number, number, number == 0)


def test_what_is_due_is_drawn_and_the_rest_at_the_end() -> None:
    pictures, taker = Pictures(), Taker()
    pictures.take(taker, offered(a="now", b="end"), at(0), Clock())  # type: ignore[arg-type]
    pictures.take(taker, offered(a="now", b="end"), at(1), Clock())  # type: ignore[arg-type]
    assert taker.taken == ["a", "a"]
    assert pictures.drawn == {"a": 1}
    pictures.finish(taker, Clock())  # type: ignore[arg-type]
    pictures.finish(taker, Clock())  # type: ignore[arg-type]
    assert taker.taken == ["a", "a", "b"]


def test_a_picture_that_failed_counts_as_not_drawn_and_is_tried_again() -> None:
    pictures = Pictures()
    pictures.take(Taker("a"), offered(a="now"), at(0), Clock())  # type: ignore[arg-type]
    assert pictures.drawn == {}
    taker = Taker()
    pictures.finish(taker, Clock())  # type: ignore[arg-type]
    assert taker.taken == ["a"]
    assert pictures.drawn == {"a": 0}


def test_fast_dev_run_has_one_picture_of_each_kind() -> None:
    taker = Taker(fast=True)
    Pictures().take(taker, offered(maps_a="now", maps_b="now", spectrum="now"), at(0), Clock())  # type: ignore[arg-type]
    assert sorted(taker.taken) == ["maps/a", "spectrum"]


def test_what_there_is_no_time_for_waits_for_its_turn_or_for_the_end() -> None:
    pictures, taker, clock = Pictures(), Taker(), Clock()
    take: Any = partial(pictures.take, taker, clock=clock)  # type: ignore[arg-type]
    take(offered(spectrum_a="now", maps_a="now"), at(0), may_draw=lambda seconds: False)
    take(offered(maps_a="now", spectrum_a="end"), at(1), may_draw=lambda seconds: False)
    assert taker.taken == []
    take(offered(maps_a="end"), at(2), may_draw=lambda seconds: len(taker.taken) < 1)
    assert (taker.taken, taker.steps) == (["spectrum/a"], [0])  # that of the first measurement, at its own step
    pictures.finish(taker, clock)  # type: ignore[arg-type]
    assert (taker.taken, taker.steps) == (["spectrum/a", "maps/a"], [0, 20])  # the map of the last one has all others


def test_at_the_end_a_layer_is_drawn_as_it_was_when_it_was_due_and_as_it_is() -> None:
    pictures, taker = Pictures(), Taker()
    pictures.take(taker, offered(spectrum_a="now"), at(0), Clock(), lambda seconds: False)  # type: ignore[arg-type]
    pictures.take(taker, offered(spectrum_a="end"), at(1), Clock(), lambda seconds: False)  # type: ignore[arg-type]
    pictures.finish(taker, Clock())  # type: ignore[arg-type]
    assert (taker.taken, taker.steps) == (["spectrum/a", "spectrum/a"], [0, 10])


def test_a_picture_is_expected_to_take_as_long_as_the_last_of_its_kind() -> None:
    class Slow(Taker):
        def image(self, key: str, draw: Callable[[], Any], step: int) -> bool:
            time.sleep(0.3)
            return super().image(key, draw, step)

    expected: list[float] = []

    def may_draw(seconds: float) -> bool:
        expected.append(seconds)
        return True

    pictures, clock = Pictures(), Clock()
    for number, key in enumerate(("maps_a", "maps_b", "spectrum_c")):
        pictures.take(Slow(), offered(**{key: "now"}), at(number), clock, may_draw)  # type: ignore[arg-type]
    assert expected[1] == pytest.approx(0.3, abs=0.1)
    assert expected[0] == expected[2] in (EXPECTED, WITH_IMPORTS)
    assert clock.drawn >= 0.9


def test_pictures_of_the_whole_history_are_drawn_less_often_as_it_grows() -> None:
    numbers = [number for number in range(1001) if is_redrawn(number, number + 1)]
    assert numbers[:12] == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48]
    assert len(numbers) == 20
    for before, after in pairwise(numbers):
        assert after - before <= max(1, before // 2)


def test_of_a_history_that_drops_its_oldest_a_part_at_most_is_missing() -> None:
    for kept in (1, 20, 100, 1000):
        numbers = [number for number in range(50_000, 52_000) if is_redrawn(number, kept)]
        assert max(after - before for before, after in pairwise(numbers)) <= max(1, kept // 2)


def rarely(view: View, number: int) -> View:
    """The same, with maps drawn at the measurement of number two alone."""
    maps = [replace(one, when="now" if number == 2 else "end") for one in view.pictures if one.key.startswith("maps")]
    return replace(view, pictures=[*maps, *(one for one in view.pictures if not one.key.startswith("maps"))])


class RareWeights(WeightSpectrumMonitor):
    def _view(self, measurement: Any) -> View:
        assert self.measurement is not None
        return rarely(super()._view(measurement), self.measurement.number)


class RareCurvature(CurvatureMonitor):
    def _view(self, measurement: Any) -> View:
        assert self.measurement is not None
        return rarely(super()._view(measurement), self.measurement.number)


@pytest.mark.usefixtures("no_bound_on_pictures")
def test_the_end_draws_what_the_last_picture_lacks_and_nothing_twice(tmp_path: Path) -> None:
    callbacks = [RareWeights(metrics=["alpha"]), RareCurvature(every_n_epochs=1, num_steps=3)]
    drawn = images(fit(*callbacks, logger=TensorBoardLogger(str(tmp_path)), epochs=5, model=Classifier()).log_dir)
    assert drawn["ww.maps/alpha"] == drawn["curvature.maps/spectrum"] == [11, 29]
    assert drawn["curvature/spectrum"] == [0, 5, 11, 17, 23, 29]
    drawn = images(fit(*callbacks, logger=TensorBoardLogger(str(tmp_path)), epochs=2, model=Classifier()).log_dir)
    assert drawn["ww.maps/alpha"] == drawn["curvature.maps/spectrum"] == [11]


@pytest.mark.usefixtures("no_bound_on_pictures")
def test_a_run_that_is_broken_off_has_its_last_pictures(tmp_path: Path) -> None:
    class Broken(Classifier):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                raise RuntimeError("out of luck")

    callbacks = [RareWeights(metrics=["alpha"]), RareCurvature(every_n_epochs=1, num_steps=3)]
    logger = TensorBoardLogger(str(tmp_path))
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(*callbacks, logger=logger, model=Broken())
    drawn = images(logger.log_dir)
    assert drawn["ww.maps/alpha"] == drawn["curvature.maps/spectrum"] == [5]
    assert drawn["ww.spectrum/hidden"] == [0, 5]


def test_fast_dev_run_goes_the_whole_way_of_each_kind() -> None:
    callbacks: list[Any] = [WeightSpectrumMonitor(on_error="raise"), CurvatureMonitor(num_steps=3, on_error="raise")]
    trainer = quiet_trainer(callbacks=callbacks, logger=True, fast_dev_run=2)
    trainer.fit(Deep(), data(), data(shuffle=False))
    assert [len(one.history) for one in callbacks] == [2, 2]


def test_without_panels_there_are_none(tmp_path: Path) -> None:
    callbacks = WeightSpectrumMonitor(panels=False), CurvatureMonitor(panels=False, num_steps=3)
    trainer = fit(*callbacks, logger=TensorBoardLogger(str(tmp_path)), epochs=1)
    assert images(trainer.log_dir) == {}
    assert not list(Path(str(trainer.log_dir)).glob("lightning-ww"))


class NoInk(WeightSpectrumMonitor):
    """Cannot draw these pictures, or, of some, not at the first measurement."""

    never: tuple[str, ...] = ()
    not_at_first: tuple[str, ...] = ()

    def _view(self, measurement: Any) -> View:
        assert self.measurement is not None
        view, number = super()._view(measurement), self.measurement.number

        def draw(one: Picture) -> Any:
            if one.key in self.never or (one.key in self.not_at_first and number == 0):
                raise RuntimeError("no ink")
            return one.draw()

        return replace(view, pictures=[replace(one, draw=partial(draw, one)) for one in view.pictures])


@pytest.mark.usefixtures("no_bound_on_pictures")
def test_a_picture_that_fails_costs_nothing_but_itself(tmp_path: Path) -> None:
    class Never(NoInk):
        never = ("spectrum/hidden",)

    with pytest.warns(UserWarning, match="could not draw `ww.spectrum`"):
        trainer = fit(Never(metrics=["alpha"]), logger=TensorBoardLogger(str(tmp_path)), epochs=1)
    assert images(trainer.log_dir) == {
        "ww.maps/alpha": [0, 5],
        "ww.spectrum/middle.2": [0, 5],
        "ww.spectrum/middle.5": [0, 5],
    }


@pytest.mark.usefixtures("no_bound_on_pictures")
def test_a_picture_that_failed_is_drawn_at_its_next_turn(tmp_path: Path) -> None:
    class Later(NoInk):
        not_at_first = ("maps/alpha",)

    with pytest.warns(UserWarning, match="could not draw `ww.maps`"):
        trainer = fit(Later(metrics=["alpha"]), logger=TensorBoardLogger(str(tmp_path)), epochs=2)
    assert images(trainer.log_dir)["ww.maps/alpha"] == [5, 11]


def test_an_error_of_the_users_is_the_one_that_is_raised(tmp_path: Path) -> None:
    class Never(NoInk):
        never = ("maps/alpha",)

    class Broken(Classifier):
        def on_train_start(self) -> None:
            raise KeyError("the user's")

    class Late(Never):
        def _view(self, measurement: Any) -> View:
            view = super()._view(measurement)
            return replace(view, pictures=[replace(one, when="end") for one in view.pictures])

    logger = TensorBoardLogger(str(tmp_path))
    monitor = Late(on_error="raise")
    with pytest.raises(KeyError, match="the user's"), pytest.warns(UserWarning, match="could not draw"):
        fit(monitor, logger=logger, model=Broken())


def test_an_error_of_the_users_does_not_change_what_becomes_of_ours(tmp_path: Path) -> None:
    class BreaksOnce(Classifier):
        is_broken = True

        def on_train_epoch_end(self) -> None:
            if self.is_broken:
                self.is_broken = False
                raise RuntimeError("once")

    class Breaking(WeightSpectrumMonitor):
        is_broken = False

        def _snapshot(self, *arguments: Any) -> Any:
            if self.is_broken:
                raise ArithmeticError("ours")
            return super()._snapshot(*arguments)

    model, monitor = BreaksOnce(), Breaking(on_error="raise")
    trainer = quiet_trainer(callbacks=[monitor], logger=TensorBoardLogger(str(tmp_path)), max_epochs=2)
    with pytest.raises(RuntimeError, match="once"):
        trainer.fit(model, data(), data(shuffle=False))
    monitor.is_broken = True  # so that the next measurement fails
    with pytest.raises(ArithmeticError, match="ours"):
        trainer.fit(model, data(), data(shuffle=False))


def test_no_picture_of_one_run_gets_into_another(tmp_path: Path) -> None:
    class Refusing(Classifier):
        def setup(self, stage: str) -> None:
            raise RuntimeError("not today")

    callbacks = WeightSpectrumMonitor(), CurvatureMonitor(num_steps=3)
    fit(*callbacks, logger=False, epochs=1)
    logger = TensorBoardLogger(str(tmp_path))
    with pytest.raises(RuntimeError, match="not today"):
        fit(*callbacks, logger=logger, epochs=1, model=Refusing())
    assert not Path(logger.log_dir).exists() or images(logger.log_dir) == {}


class Later:
    """In place of a process beside training: draws when it is told to."""

    is_ready = True

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[Future[Any], Any]] = []
        self.error = error

    @property
    def num_waiting(self) -> int:
        return sum(not future.done() for future, _ in self.asked)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.asked.append((future, partial(function, *arguments)))
        return future

    def answer(self) -> None:
        for future, call in self.asked:
            if not future.done() and self.error is None:
                future.set_result(call())
            elif not future.done():
                future.set_exception(self.error)


def from_another(pictures: Any, taker: Taker, clock: Clock, later: Later) -> Any:
    return partial(pictures.take, taker, clock=clock, worker=later)


def test_pictures_of_another_process_are_logged_when_they_come_at_their_own_step() -> None:
    pictures, taker, clock, later = Pictures(), Taker(), Clock(), Later()
    take = from_another(pictures, taker, clock, later)
    take(offered(maps_a="now", maps_b="now"), at(0))
    assert (taker.taken, pictures.drawn, pictures.have_come) == ([], {"maps/a": 0, "maps/b": 0}, False)
    take(offered(maps_a="now"), at(1))
    take(offered(maps_a="now"), at(2))  # too many wait: its turn comes later
    later.answer()
    assert pictures.have_come
    pictures.collect(taker, clock)  # type: ignore[arg-type]
    assert (taker.taken, taker.steps) == (["maps/a", "maps/b", "maps/a"], [0, 0, 10])
    take(offered(), at(3))
    later.answer()
    pictures.finish(taker, clock)  # type: ignore[arg-type]
    assert (taker.taken[3:], taker.steps[3:]) == (["maps/a"], [20])


def test_a_process_that_is_still_starting_when_the_fit_ends_is_not_waited_for() -> None:
    pictures, clock, later, taker = Pictures(), Clock(), Later(), Taker()
    later.is_ready = False
    take = from_another(pictures, taker, clock, later)
    take(offered(a="now", b="end"), at(0))
    began = time.monotonic()
    pictures.finish(taker, clock, later)  # type: ignore[arg-type]
    assert time.monotonic() - began < 5
    assert taker.taken == ["a", "b"]
    assert pictures.drawn == {"a": 0, "b": 0}


def test_what_another_process_cannot_draw_is_drawn_here() -> None:
    def failing() -> Any:
        raise RuntimeError

    pictures, clock, later, taker = Pictures(), Clock(), Later(), Taker("bad")
    drawn: list[str] = []

    def once() -> Any:  # fails there, but not here
        drawn.append("a")
        if len(drawn) == 1:
            raise RuntimeError
        return PIXELS

    offer = [Picture("first", once), Picture("bad", failing), Picture("good", lambda: PIXELS)]
    take = from_another(pictures, taker, clock, later)
    take(offer, at(0))
    later.answer()
    pictures.collect(taker, clock)  # type: ignore[arg-type]
    assert taker.taken == ["first", "bad", "good"]
    assert pictures.drawn == {"first": 0, "good": 0}


def test_pictures_that_cannot_be_sent_or_whose_process_is_lost_are_drawn_here() -> None:
    class Strict(Later):
        def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
            raise TypeError("no name")

    for later in (Strict(), Later(WorkerLostError("gone"))):
        pictures, clock, taker = Pictures(), Clock(), Taker()
        take = from_another(pictures, taker, clock, later)
        take(offered(a="now"), at(0))
        later.answer()
        pictures.collect(taker, clock)  # type: ignore[arg-type]
        assert taker.taken == ["a"]
        assert pictures.drawn == {"a": 0}
        assert taker.said == ([] if isinstance(later, Strict) else ["worker"])
