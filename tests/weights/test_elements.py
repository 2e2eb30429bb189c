"""The moments of elements against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.references import gaussian
from scipy.stats import kurtosis

from lightning_ww.weights import elements
from lightning_ww.weights.elements import element_statistics


def test_element_statistics_equal_numpys_and_scipys() -> None:
    slices = np.random.default_rng(0).standard_t(6, (3, 40, 30)) + 0.3
    statistics = element_statistics(slices)
    for k, matrix in enumerate(slices):
        assert statistics.mean[k] == pytest.approx(matrix.mean())
        assert statistics.std[k] == pytest.approx(matrix.std())
        assert statistics.excess_kurtosis[k] == pytest.approx(kurtosis(matrix.ravel()))
        assert statistics.largest[k] == pytest.approx(np.abs(matrix - matrix.mean()).max())


def test_trimmed_variance_leaves_out_the_visible_elements() -> None:
    weight = gaussian(100, 100)
    weight[3, 4] = 40.0  # the visible size is 10 times a deviation of about 1.08
    statistics = element_statistics(weight[None])
    rest = np.delete(weight.ravel(), 304)
    assert statistics.trimmed_variance[0] == pytest.approx(rest.var(), rel=1e-12)
    assert statistics.trap_element == pytest.approx((40 - weight.mean()) / (weight.std() * 10))


def test_mean_shift_is_in_units_of_its_visibility() -> None:
    weight = gaussian(100, 100) + 0.2
    shift = element_statistics(weight[None]).trap_mean_shift
    assert shift == pytest.approx(weight.mean() * 10 / weight.std())


@pytest.mark.parametrize("shape", [(1, 40, 30), (7, 9, 5), (2, 64, 48)])
@pytest.mark.parametrize("size", [1, 100, 1000])
def test_element_statistics_do_not_depend_on_the_size_of_blocks(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], size: int
) -> None:
    slices = np.random.default_rng(0).standard_t(3, shape).astype(np.float32)
    slices[:, 0, 0] = 90  # visible in all of them
    whole = element_statistics(slices)
    monkeypatch.setattr(elements, "BLOCK", size)
    cut = element_statistics(slices)
    for name in ("mean", "std", "trimmed_variance", "excess_kurtosis", "largest"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), rtol=1e-12)
