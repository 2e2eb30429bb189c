"""The verdict on an estimate, from its draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_ww.curvature import LearningCoefficient
from lightning_ww.curvature.coefficient import judged, moved


def found(draws: Any, **numbers: Any) -> LearningCoefficient:
    rows = torch.as_tensor(draws, dtype=torch.float64)
    given: dict[str, Any] = {"localization": 1.0, "lambda_min": 0.0, "reached": 1.0} | numbers
    return LearningCoefficient(
        value=float(rows.mean()),
        chains=tuple(rows.mean(1).tolist()),
        drift=float(moved(rows).mean()),
        is_valid=True,
        reason="",
        loss=0.1,
        step_size=0.1,
        n_beta=10.0,
        num_samples=40,
        quadratic=None,
        draws=rows,
        **given,
    )


STEADY = [[2.0, 2.1, 1.9, 2.0], [2.1, 1.9, 2.0, 2.0]]


@pytest.mark.parametrize(
    ("draws", "numbers", "reason"),
    [
        (STEADY, {}, ""),
        ([[2.0, float("nan")]], {}, "a chain was lost"),
        (STEADY, {"lambda_min": -1.0}, "raise `localization` above 10"),
        ([[-1.0, -1.0]], {}, "not at a minimum of these data"),
        (STEADY, {"reached": 0.5}, "reach 50 %"),
        ([[1.0, 1.0, 3.0, 3.0]] * 3, {}, "have not settled"),
        ([[1.0, 1.0], [1.0, 1.0], [9.0, 9.0]], {}, "disagree"),
    ],
)
def test_each_fault_has_its_reason(draws: Any, numbers: dict[str, Any], reason: str) -> None:
    said = judged(found(draws, **numbers), "")
    assert said.is_valid == (not reason)
    assert reason in said.reason


def test_a_trouble_with_the_step_is_a_reason_and_one_chain_has_no_error() -> None:
    assert judged(found(STEADY), "no stable step was found").reason == "no stable step was found"
    assert found([[1.0, 2.0]]).stderr is None
    assert found([[1.0, 1.0], [3.0, 3.0]]).stderr == pytest.approx(1.0)
