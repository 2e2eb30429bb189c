"""`Instability`: the factor, the window, and the sharpness that must rise where it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from helpers.reports import followed, layer, report

from lightning_ww import History, Instability, Measurement, Moment, diagnose


def flagged(ranks: Sequence[float], norms: Sequence[float] | None = None, **options: Any) -> list[bool]:
    norms = [1.0] * len(ranks) if norms is None else norms
    reports = [report(layer("a", stable_rank=r, sv_max=s)) for r, s in zip(ranks, norms, strict=True)]
    return [bool(one.flags) for one in followed(reports, Instability(**options))]


def test_a_stable_rank_that_halves_or_a_norm_that_doubles_is_flagged() -> None:
    assert flagged([40, 20, 20, 11, 9.9]) == [False, False, False, False, True]
    assert flagged([9] * 5, [1, 1, 1.4, 1.9, 2.1]) == [False, False, False, False, True]


def test_the_way_from_the_initial_weights_is_not_judged() -> None:
    assert flagged([40, 10, 10], [1, 4, 4]) == [False] * 3


def test_slower_changes_are_not_flagged() -> None:
    assert not any(flagged([40, 20, 17, 14, 12, 10]))
    assert flagged([40, 20, 17, 14, 12, 10], within=5)[-1]
    assert flagged([40, 20, 15], factor=1.3)[-1]


def test_a_norm_of_zero_and_missing_values_are_no_evidence() -> None:
    assert not any(flagged([9] * 4, [0, 0, 0, 1]))
    reports = [report(layer("a")) for _ in range(4)]
    assert not any(one.flags for one in followed(reports, Instability()))


class Beside:
    """The findings of another monitor."""

    layers = ()
    skipped = ()

    def __init__(self, summary: dict[str, float]) -> None:
        self.summary = summary


@pytest.mark.parametrize(("group", "name"), [("curvature", "sharpness"), ("gradients", "norm")])
@pytest.mark.parametrize(("numbers", "is_flagged"), [((5, 5, 6), True), ((5, 5, 5), False), ((5, 5, 2), False)])
def test_sharpness_or_gradients_must_rise_where_they_are_measured(
    group: str, name: str, numbers: Sequence[float], is_flagged: bool
) -> None:
    own, other, trigger = History[Measurement](), History[Measurement](), Instability()
    for i, (rank, number) in enumerate(zip((40, 20, 9), numbers, strict=True)):
        moment = Moment(i, i, i, i, i == 0)
        other.append(Measurement.of(moment, Beside({name: number})))
        found = report(layer("a", stable_rank=float(rank), sv_max=1.0))
        measurement = Measurement.of(moment, found, trigger.needs)
        said = diagnose(own.up_to(measurement, found, {group: other}), [trigger])
        own.append(measurement.judged({}, said.by_trigger, said.fired, said.layers_from_start))
    assert bool(said.flags) == is_flagged


def test_it_gives_its_numbers() -> None:
    reports = [report(layer("a", stable_rank=rank, sv_max=1.0)) for rank in (40.0, 20.0, 9.0)]
    said = "stable_rank fell from 20 to 9 within 1 measurement (threshold: a factor of 2)"
    assert said in str(followed(reports, Instability())[-1].flags[0])


@pytest.mark.parametrize("values", [{"factor": 0.9}, {"within": 0}, {"min_short_side": 0}])
def test_unfit_arguments_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Instability(**values)
