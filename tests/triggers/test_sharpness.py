"""`Sharpness`: thresholds, words, and what stands from the start."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lightning_ww import Diagnosis, History, Measurement, Moment, Sharpness, Trigger, diagnose


class Findings:
    """The curvature's findings, with this ratio."""

    layers = ()
    skipped = ()

    def __init__(self, ratio: float | None) -> None:
        self.summary = {"sharpness": 1.0} | ({} if ratio is None else {"optimizer_sharpness": ratio})


def followed(ratios: Sequence[float | None], trigger: Trigger) -> list[Diagnosis]:
    history, found = History[Measurement](), []
    for i, ratio in enumerate(ratios):
        measurement = Measurement.of(Moment(i, i, i, i, i == 0), Findings(ratio))
        found.append(diagnose(history.up_to(measurement, Findings(ratio)), [trigger]))
        history.append(
            measurement.judged(measurement.summary, found[-1].by_trigger, found[-1].fired, found[-1].layers_from_start)
        )
    return found


def test_it_rises_above_its_threshold_and_falls_below_another() -> None:
    found = followed([1.0, 1.25, 1.26, 1.15, 1.05], Sharpness())
    assert [bool(one.fired) for one in found] == [False, False, True, True, False]
    assert "sharpness is 1.26 of the optimizer's edge of stability (threshold 1.25)" in str(found[2].flags[0])
    assert "cleared below 1.1" in str(found[3].flags[0])


def test_an_unknown_edge_raises_nothing() -> None:
    assert not any(one.flags or one.from_start for one in followed([None, None, None], Sharpness()))


def test_what_stands_from_the_start_is_reported_until_it_gets_worse() -> None:
    found = followed([1.4, 1.45, 1.5, 1.6, 1.6], Sharpness())
    assert [bool(one.flags) for one in found] == [False, False, False, True, True]
    assert all(one.from_start for one in found[:3])


@pytest.mark.parametrize("values", [{"enter": -1.0}, {"enter": 1.0}])
def test_unfit_thresholds_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"Sharpness\((enter|leave)"):
        Sharpness(**values)
