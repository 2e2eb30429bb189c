"""The power-law fit against brute force, closed forms, samples of known exponent, and the powerlaw package."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import powerlaw
import pytest
from helpers.references import Array, brute_force_power_law, gaussian, squares
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ww.weights import NoPowerLawError, compare_tails, fit_power_law, hill_alpha


def samples(kind: str, n: int, seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    if kind == "pareto":
        return random.pareto(1.5, n) + 1
    if kind == "lognormal":
        return random.lognormal(size=n)
    if kind == "marchenko_pastur":
        return squares(gaussian(2 * n, n, seed))
    return np.concatenate([random.uniform(0, 1, n - n // 5), random.pareto(2.0, n // 5) + 1])  # bulk and tail


@pytest.mark.parametrize("kind", ["pareto", "lognormal", "marchenko_pastur", "bulk_and_tail"])
@pytest.mark.parametrize("n", [8, 9, 19, 20, 21, 64, 257, 700])
def test_pruned_search_equals_brute_force(kind: str, n: int) -> None:
    for seed in range(3):
        x = samples(kind, n, seed)
        alpha, xmin, distance = brute_force_power_law(x)
        fit = fit_power_law(x)
        assert fit.alpha == pytest.approx(alpha, rel=1e-9)
        assert fit.xmin == pytest.approx(xmin, rel=1e-12)
        assert fit.ks_distance == pytest.approx(distance, abs=1e-12)
        assert fit.num_tail == (x >= fit.xmin).sum()
        assert fit.alpha_stderr == pytest.approx((alpha - 1) / fit.num_tail**0.5, rel=1e-9)


@pytest.mark.parametrize("kind", ["pareto", "lognormal", "marchenko_pastur", "bulk_and_tail"])
def test_fit_equals_powerlaw_package(kind: str) -> None:
    x = samples(kind, 150)
    theirs = powerlaw.Fit(x, parameter_ranges={"alpha": [1, None]}, verbose=False)  # its own default caps alpha at 3
    fit = fit_power_law(x)
    assert fit.alpha == pytest.approx(theirs.power_law.alpha, rel=1e-9)
    assert fit.xmin == pytest.approx(theirs.xmin, rel=1e-12)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 2.5, 3.0, 4.0, 6.0])
def test_alpha_of_pareto_quantiles_is_the_known_exponent(alpha: float) -> None:
    quantiles = (1 - (np.arange(4000) + 0.5) / 4000) ** (-1 / (alpha - 1))
    fit = fit_power_law(quantiles)
    assert fit.alpha == pytest.approx(alpha, rel=0.01)
    assert fit.num_tail > 1000


@pytest.mark.parametrize("alpha", [1.5, 2.5, 3.5])
def test_alpha_of_pareto_samples_is_the_known_exponent_within_its_error(alpha: float) -> None:
    fits = [fit_power_law(np.random.default_rng(s).pareto(alpha - 1, 1000) + 1) for s in range(20)]
    assert np.mean([fit.alpha for fit in fits]) == pytest.approx(alpha, rel=0.06)
    assert np.mean([abs(fit.alpha - alpha) < 4 * fit.alpha_stderr for fit in fits]) >= 0.8


def test_hill_alpha_of_pareto_quantiles_is_the_known_exponent() -> None:
    quantiles = (1 - (np.arange(4000) + 0.5) / 4000) ** (-1 / 1.5)
    assert hill_alpha(quantiles) == pytest.approx(2.5, rel=0.01)


def test_hill_alpha_equals_its_definition() -> None:
    x = np.sort(samples("lognormal", 101))
    assert hill_alpha(x) == pytest.approx(1 + 51 / np.log(x[50:] / x[50]).sum(), rel=1e-12)


@given(st.integers(0, 10**6), st.floats(-8, 8))
@settings(max_examples=50, deadline=None)
def test_alpha_does_not_depend_on_scale(seed: int, decades: float) -> None:
    x = samples("lognormal", 60, seed)
    fit, scaled = fit_power_law(x), fit_power_law(x * 10**decades)
    assert scaled.alpha == pytest.approx(fit.alpha, rel=1e-6)
    assert scaled.num_tail == fit.num_tail


def test_eigenvalues_that_are_rounding_are_left_out() -> None:
    x = samples("pareto", 100)
    assert fit_power_law(np.concatenate([x, np.full(40, 1e-14), np.zeros(5)])) == fit_power_law(x)


@pytest.mark.parametrize(
    ("eigenvalues", "message"),
    [
        (np.ones(7), "spectrum too narrow: 7 positive eigenvalues, a power law needs 8"),
        (np.zeros(50), "spectrum too narrow: 0 positive eigenvalues, a power law needs 8"),
        (np.full(50, 2.0), "spectrum too narrow: all eigenvalues are alike (alpha > 1001)"),
        (2 + 1e-6 * np.arange(50), "spectrum too narrow: all eigenvalues are alike (alpha > 1001)"),
    ],
)
def test_nothing_to_fit_is_said_in_words(eigenvalues: Array, message: str) -> None:
    for fit in (fit_power_law, hill_alpha):
        with pytest.raises(NoPowerLawError, match=f"^{re.escape(message)}$"):
            fit(eigenvalues)


def test_narrow_candidates_are_left_out_and_the_rest_is_fitted() -> None:
    x = np.concatenate([samples("pareto", 60), np.full(30, 1e3)])  # 30 equal values at the top
    alpha, xmin, _ = brute_force_power_law(x)
    assert fit_power_law(x).alpha == pytest.approx(alpha, rel=1e-9)
    assert fit_power_law(x).xmin == xmin


def test_tail_comparison_favors_the_distribution_that_made_the_sample() -> None:
    exponential = np.random.default_rng(0).exponential(size=2000) + 1
    fit = dataclasses.replace(fit_power_law(exponential), xmin=1.0)
    compared = compare_tails(exponential, fit)
    assert set(compared) == {"lognormal", "exponential", "truncated_power_law"}
    assert compared["exponential"] is not None
    assert compared["exponential"].log_likelihood_ratio < -2
    pareto = np.random.default_rng(0).pareto(1.5, 2000) + 1
    favored = compare_tails(pareto, fit_power_law(pareto))["exponential"]
    assert favored is not None
    assert favored.log_likelihood_ratio > 2
    assert favored.p_value < 0.05
