"""The directions of largest curvature are followed as they change, against known eigenvalues."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_ww.callbacks._curvature.tops import Tops
from lightning_ww.curvature import CurvatureOperator


def diagonal(values: torch.Tensor) -> CurvatureOperator:
    like: Any = [torch.zeros_like(values, requires_grad=True)]
    return CurvatureOperator(lambda v: values * v, like)


def test_it_finds_the_largest_also_after_another_has_overtaken() -> None:
    tops, values = Tops(), torch.linspace(0, 1, 50)
    for step, (first, second) in enumerate(((5.0, 2.0), (5.0, 4.0), (5.0, 8.0), (5.0, 20.0))):
        values[7], values[33] = first, second
        sharpness, residual = tops.follow(diagonal(values.clone()), 0, step)
        assert sharpness == pytest.approx(max(first, second), rel=0.02)
        assert residual <= 0.05 * sharpness
    smaller = tops.follow(diagonal(torch.linspace(0, 3, 20)), 0, 9)  # another number of parameters
    assert smaller[0] == pytest.approx(3, rel=0.02)
