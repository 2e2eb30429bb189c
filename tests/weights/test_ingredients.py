"""Each ingredient of a layer's numbers is made once, when it is asked for, or says why there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.references import counted_decompositions, gaussian

from lightning_ww._errors import NoValueError
from lightning_ww.weights.ingredients import Ingredients, Request
from lightning_ww.weights.shuffle import Shuffler
from lightning_ww.weights.slices import UnreadableWeightError


def ingredients(weight: torch.Tensor, **asked: object) -> Ingredients:
    return Ingredients("a", weight.unsqueeze(0), Request(Shuffler(), **asked))  # type: ignore[arg-type]


def test_one_decomposition_serves_every_number(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted_decompositions(monkeypatch)
    made = ingredients(torch.as_tensor(gaussian(80, 70)), shuffle="off")
    assert not calls
    _ = made.spectrum, made.fit, made.sv_max, made.sum_and_largest, made.detx_num
    assert len(calls) == 1


def test_a_spectrum_is_numpys() -> None:
    weight = gaussian(80, 70)
    made = ingredients(torch.as_tensor(weight))
    np.testing.assert_allclose(made.spectrum.singular_values[0], np.linalg.svd(weight)[1][::-1], rtol=1e-9)
    total, largest = made.sum_and_largest
    assert total == pytest.approx((weight**2).sum())
    assert largest == pytest.approx(np.linalg.norm(weight, 2) ** 2)


@pytest.mark.parametrize("name", ["live", "fit", "elements", "trap_scores", "shuffled_eigenvalues"])
def test_of_a_zero_weight_there_is_no(name: str) -> None:
    with pytest.raises(NoValueError, match="the weight is zero"):
        getattr(ingredients(torch.zeros(20, 16)), name)


def test_what_was_not_given_is_said() -> None:
    with pytest.raises(NoValueError, match="the initial weights hold no such layer"):
        _ = ingredients(torch.ones(20, 16), initial={}).drift
    with pytest.raises(NoValueError, match=r"the initial weight has slices of shape \(1, 3, 3\)"):
        _ = ingredients(torch.ones(20, 16), initial={"a": torch.ones(1, 3, 3)}).drift
    assert ingredients(torch.ones(20, 16), floors={"a": 0.25}).floor == 0.25


def test_a_weight_that_is_lost_cannot_be_read() -> None:
    with pytest.raises(UnreadableWeightError, match="1 of 320 elements are NaN or infinite"):
        ingredients(torch.eye(20, 16).put(torch.tensor([0]), torch.tensor([float("nan")])))
