"""One wording for the same bad argument, wherever it is passed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lightning_ww import CorrelationTrap, LightningWWError, RankCollapse, _checks, analyze
from lightning_ww.callbacks import CurvatureMonitor, SpectralEarlyStopping, WeightSpectrumMonitor
from lightning_ww.curvature import select_parameters, spectral_density
from lightning_ww.curvature.krylov import lanczos


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _checks.choice("f", "x", 3, (1, 2)), "`f(x=3)`: expected one of (1, 2)."),
        (lambda: _checks.count("f", "x", True, least=1), "`f(x=True)`: expected an integer of at least 1."),
        (
            lambda: _checks.optional_count("f", "x", 0, least=1),
            "`f(x=0)`: expected an integer of at least 1, or `None`.",
        ),
        (lambda: _checks.number("f", "x", float("nan")), "`f(x=nan)`: expected a number of at least 0."),
        (lambda: _checks.number("f", "x", 2, most=1), "`f(x=2)`: expected a number from 0 to 1."),
        (lambda: _checks.names("f", "x", ["b"], ["a"]), "`f(x=...)` does not know 'b'. Known are 'all' and: a."),
        (lambda: _checks.instance("f", "x", 1, str), "`f(x=1)`: expected a `str`."),
        (lambda: _checks.having("f", "x", 1, "__iter__", "a list"), "`f(x=1)`: expected a list, or `None`."),
        (lambda: _checks.patterns("f", "x", 1), "`f(x=1)`: expected a string, a list of strings, or `None`."),  # type: ignore[arg-type]
        (
            lambda: _checks.patterns("f", "x", [], least=1),
            "`f(x=[])`: it is empty. Leave it out, or pass `None`, for all.",
        ),
        (
            lambda: _checks.matching("f", "x", "c*", ["a", "b"], "thing"),
            "`f(x='c*')` matches no thing. This model has: `a`, `b`.",
        ),
        (lambda: _checks.choice("f", "x", [1], (1, 2)), "`f(x=[1])`: expected one of (1, 2)."),
    ],
)
def test_messages_to_the_last_word(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_what_fits_is_given_back() -> None:
    assert _checks.names("f", "x", "all", ["a", "b"]) == ("a", "b")
    assert _checks.patterns("f", "x", "a") == ("a",)
    assert _checks.patterns("f", "x", None) is None
    assert _checks.optional_count("f", "x", None, least=1) is None
    plain = _checks.matching("f", "x", "a.*", ["m.a.b", "m.c"], "thing", plain=lambda name: name.removeprefix("m."))
    assert plain == {"m.a.b"}
    assert _checks.matching("f", "x", "z", ["a"], "thing", strict=False) == set()


SAME: list[tuple[str, list[Callable[[], Any]]]] = [
    (
        "expected an integer of at least 0.",
        [
            lambda: analyze(nn.Linear(9, 9), seed=-1),
            lambda: WeightSpectrumMonitor(seed=-1),
            lambda: CurvatureMonitor(seed=-1),
            lambda: SpectralEarlyStopping(min_epochs=-1),
        ],
    ),
    (
        "expected an integer of at least 1.",
        [
            lambda: CurvatureMonitor(num_steps=0),
            lambda: spectral_density(torch.eye(3), num_steps=0),
            lambda: lanczos(lambda v: v, torch.ones(3), 0),
            lambda: SpectralEarlyStopping(patience=0),
            lambda: RankCollapse(min_short_side=0),
        ],
    ),
    ("expected a number from 0 to 1.", [lambda: RankCollapse(share=2), lambda: CorrelationTrap(share=2)]),
    (
        "it is empty. Leave it out, or pass `None`, for all.",
        [
            lambda: analyze(nn.Linear(9, 9), layers=[]),
            lambda: select_parameters(nn.Linear(9, 9), []),
            lambda: CurvatureMonitor(params=[]),
            lambda: WeightSpectrumMonitor(figure_layers=[]),
        ],
    ),
    (
        "expected one of",
        [
            lambda: analyze(nn.Linear(9, 9), shuffle="x"),  # type: ignore[arg-type]
            lambda: WeightSpectrumMonitor(shuffle="x"),  # type: ignore[arg-type]
            lambda: spectral_density(torch.eye(3), probe="x"),  # type: ignore[arg-type]
        ],
    ),
]


@pytest.mark.parametrize(("words", "calls"), SAME, ids=lambda value: value if isinstance(value, str) else "")
def test_the_same_fault_has_the_same_words_on_every_floor(words: str, calls: list[Callable[[], Any]]) -> None:
    for call in calls:
        with pytest.raises(ValueError, match=re.escape(words)) as caught:
            call()
        assert isinstance(caught.value, LightningWWError)
