"""`Plateau`: the window, its two limits, and spectra that are still those of noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from helpers.reports import followed, layer, report

from lightning_ww import Plateau


def fired(distances: Sequence[float], hills: Sequence[float] | None = None, **options: Any) -> list[bool]:
    hills = [2.0] * len(distances) if hills is None else hills
    reports = [
        report(layer("a", rand_distance=d, alpha_hill=h, rand_distance_floor=0.01))
        for d, h in zip(distances, hills, strict=True)
    ]
    return [bool(one.fired) for one in followed(reports, Plateau(**options))]


def test_it_fires_once_nothing_has_moved_over_ten_measurements() -> None:
    rising = [0.1, 0.2, 0.3]
    assert fired(rising + [0.3] * 10) == [False] * 12 + [True]
    assert fired(rising + [0.3] * 3, over=3) == [False] * 5 + [True]


def test_either_number_that_moves_keeps_it_silent() -> None:
    assert not any(fired([0.3 + 0.0004 * i for i in range(20)]))
    assert not any(fired([0.3] * 20, [2.0 + 0.003 * i for i in range(20)]))
    assert not any(fired([0.3, 0.31] * 10))  # up and down


def test_a_model_that_has_learned_nothing_is_not_judged() -> None:
    assert not any(fired([0.019] * 20))


@pytest.mark.parametrize(("hill", "is_fired"), [(2.0, True), (2.14, False)])
def test_a_tail_beyond_that_of_noise_is_learned(hill: float, is_fired: bool) -> None:
    noise = {"rand_distance_floor": 0.01, "alpha_hill_null": 2.165, "alpha_hill_null_sd": 0.02}
    reports = [report(layer("a", rand_distance=0.019, alpha_hill=hill, **noise)) for _ in range(12)]
    assert bool(followed(reports, Plateau())[-1].flags) == is_fired


def test_without_the_value_for_noise_nothing_is_judged() -> None:
    reports = [report(layer("a", rand_distance=0.3, alpha_hill=2.0)) for _ in range(20)]
    assert not any(one.fired for one in followed(reports, Plateau()))


def test_embeddings_do_not_count_and_the_words_have_both_numbers() -> None:
    reports = [
        report(
            layer("words", rand_distance=0.1 * i, alpha_hill=2.0, is_embedding=True),
            layer("a", rand_distance=0.3, alpha_hill=2.0, rand_distance_floor=0.01),
        )
        for i in range(12)
    ]
    found = followed(reports, Plateau())[-1]
    assert found.by_trigger == {"plateau": ("",)}
    said = "over 10 measurements mean rand_distance moved by 0 % (threshold 1 %), and mean alpha_hill by 0"
    assert said in str(found.flags[0])


def test_layers_without_a_value_keep_it_silent() -> None:
    reports = [report(layer("a", rand_distance=None, alpha_hill=2.0, rand_distance_floor=0.01)) for _ in range(12)]
    assert not any(one.flags for one in followed(reports, Plateau()))


@pytest.mark.parametrize("values", [{"distance": -1.0}, {"hill": -1.0}, {"over": 0}])
def test_unfit_arguments_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Plateau(**values)
