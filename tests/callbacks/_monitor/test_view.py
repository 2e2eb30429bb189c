"""Keys of a view, and histograms."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_ww.callbacks._monitor.view import Histogram, full_key


@pytest.mark.parametrize(
    ("key", "prefix", "expected"),
    [
        ("alpha", "", "ww/alpha"),
        ("alpha/encoder.0", "", "ww.alpha/encoder.0"),
        ("report", "teacher/", "teacher/ww/report"),
        ("maps/alpha", "a/", "a/ww.maps/alpha"),
        ("spectrum/a/b", "", "ww.spectrum/a/b"),
    ],
)
def test_a_key_gets_its_group_and_prefix(key: str, prefix: str, expected: str) -> None:
    assert full_key(key, "ww", prefix) == expected


def test_a_histogram_counts_as_numpy_does() -> None:
    values, edges = np.array([-1.0, 0.2, 0.4, 2.0]), np.array([-1.0, 0.0, 1.0, 2.0])
    assert Histogram(values, edges).counts.tolist() == np.histogram(values, edges)[0].tolist() == [1, 2, 1]
