"""Histograms of log10 λ in fixed bins, against numpy's histogram."""

from __future__ import annotations

import numpy as np

from lightning_ww.callbacks._monitor.view import Histogram
from lightning_ww.weights.plots.histogram import EsdBins


def test_every_eigenvalue_is_counted_once_in_bins_that_stay() -> None:
    eigenvalues = np.sort(np.random.default_rng(0).lognormal(size=300))
    bins = EsdBins.about(eigenvalues)
    counts = Histogram(bins.logs(eigenvalues), bins.edges).counts
    np.testing.assert_array_equal(counts, np.histogram(np.log10(eigenvalues), bins.edges)[0])
    assert counts.sum() == 300
    grown = Histogram(bins.logs(np.concatenate([[0.0, 1e-30], eigenvalues, [1e30]])), bins.edges).counts
    assert (grown.sum(), grown[0], grown[-1]) == (303, 2, 1)


def test_bins_leave_room_above_and_below_the_largest_eigenvalue() -> None:
    assert (EsdBins.about(np.array([3.0])).low, EsdBins.about(np.array([3.0])).high) == (-5, 3)
    assert len(EsdBins.about(np.array([0.0])).edges) == 65
