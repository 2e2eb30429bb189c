"""The curvature of real training against theory that this project did not write: the examples, judged."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*longer than the rest of its epoch"),  # an epoch is one step there
]


def example(name: str) -> Any:
    """A module of the examples."""
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("optimizer", "lr"), [("sgd", 0.3), ("sgd", 0.4), ("sgd", 0.6), ("adam", 3e-3), ("adam", 1e-3)]
)
def test_full_batch_training_settles_at_the_optimizers_edge_of_stability(optimizer: str, lr: float) -> None:
    """Cohen et al., 2021, arXiv:2103.00065 (lr·λ_max = 2) and 2022, arXiv:2207.14484 (38/lr for Adam)."""
    seen = example("edge_of_stability").approach(optimizer, lr)
    last = seen[-len(seen) // 4 :]
    assert sum(last) / len(last) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("classes", [2, 6, 10])
def test_the_hessian_has_one_outlier_less_than_classes(classes: int) -> None:
    """Sagun et al. (2017), arXiv:1706.04454; Papyan (2018), arXiv:1811.07062. Not a law: with 3 or 4, some have fewer."""
    outliers = example("class_outliers").num_outliers
    votes = [outliers(classes, seed) == classes - 1 for seed in range(5)]
    assert sum(votes) >= 4


@pytest.mark.parametrize("classes", [3, 4])
def test_with_few_classes_the_hessian_has_some_outliers_but_no_more_than_that(classes: int) -> None:
    outliers = example("class_outliers").num_outliers
    assert all(1 <= outliers(classes, seed) < classes for seed in range(5))
