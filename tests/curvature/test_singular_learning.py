"""The learning coefficient, against closed forms: quadratics, monomials, crossings, reduced-rank regression, deep networks."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ww.curvature import LearningCoefficient, learning_coefficient
from lightning_ww.curvature.coefficient import joined
from lightning_ww.curvature.operators import NotFiniteError
from lightning_ww.curvature.singular_learning import Sampling, sampled


def estimate(loss: Any, *params: torch.Tensor, n: int = 1000, **options: Any) -> LearningCoefficient:
    given = {"num_chains": 4, "num_draws": 500, "num_burnin": 500} | options
    return sampled(loss, list(params), Sampling(n, **given))


def of_quadratic(h: torch.Tensor, found: LearningCoefficient) -> float:
    """The expectation of the estimate over the discrete chain, ``½ Σ nβh/(A(1 − εA/4))``, A = nβh + γ."""
    pull = found.n_beta * h + found.localization
    return float((0.5 * found.n_beta * h / (pull * (1 - found.step_size * pull / 4))).sum())


@pytest.mark.parametrize("localization", [None, 50.0])
def test_of_a_quadratic_it_is_the_closed_form_of_the_discrete_chain(localization: float | None) -> None:
    h = torch.tensor([1.0, 2.0, 4.0])
    w = torch.zeros(40, 3, requires_grad=True)  # 40 copies, to average
    found = estimate(lambda: 0.5 * (h * w * w).sum(), w, num_draws=2000, localization=localization)
    assert found.value == pytest.approx(40 * of_quadratic(h, found), rel=0.02)
    assert found.stderr is not None
    assert abs(found.value - 40 * of_quadratic(h, found)) < 4 * max(found.stderr, 0.01)
    assert found.is_valid
    assert found.step_size * (found.n_beta * 4 + found.localization) == pytest.approx(0.2, rel=1e-3)
    continuous = 20 * float((found.n_beta * h / (found.n_beta * h + found.localization)).sum())
    assert found.quadratic == pytest.approx(continuous, rel=0.05)  # one random start vector


def test_without_localization_a_regular_minimum_has_half_its_number_of_parameters() -> None:
    w = torch.zeros(60, requires_grad=True)
    found = estimate(lambda: 0.5 * (w * w).sum(), w, localization=0.0, num_draws=2000)
    assert found.value == pytest.approx(30 / (1 - 0.2 / 4), rel=0.03)


@pytest.mark.parametrize(("power", "expected"), [(2, 0.25), (3, 1 / 6)])
def test_of_a_degenerate_minimum_it_is_that_of_the_monomial(power: int, expected: float) -> None:
    """``w^(2k)`` has 1/(2k), while the Hessian is zero: the quadratic approximation, and any volume by it, is wrong."""
    w = torch.zeros(30, requires_grad=True)
    found = estimate(lambda: (w ** (2 * power)).sum(), w, num_draws=3000, num_burnin=1000)
    assert found.value / 30 == pytest.approx(expected, rel=0.1)
    assert found.quadratic == pytest.approx(0, abs=1e-6)


def test_of_a_normal_crossing_it_approaches_the_least_of_its_exponents() -> None:
    """``w₁² w₂⁴`` has 1/4; at this n and γ = 1 the integral itself is 0.2353, by quadrature."""
    nb = 10**5 / math.log(10**5)
    a, b = np.meshgrid(np.linspace(-5, 5, 4001), np.linspace(-5, 5, 4001))
    k = a**2 * b**4
    density = np.exp(-nb * k - 0.5 * (a**2 + b**2))
    exact = float(nb * (k * density).sum() / density.sum())
    assert exact == pytest.approx(0.2353, rel=0.02)
    w = torch.zeros(40, 2, requires_grad=True)
    found = estimate(lambda: (w[:, 0] ** 2 * w[:, 1] ** 4).sum(), w, n=10**5, num_draws=6000, num_burnin=4000)
    assert found.value / 40 == pytest.approx(exact, rel=0.15)


def of_regression(m: int, h: int, n: int, r: int) -> float:
    """Reduced-rank regression with m inputs, n outputs, h hidden units and true rank r (Aoyagi, Watanabe 2005)."""
    if n + r <= m + h and m + r <= n + h and h + r <= m + n:
        odd = (m + h + n + r) % 2
        return (2 * (h + r) * (m + n) - (m - n) ** 2 - (h + r) ** 2 + odd) / 8
    if m + h < n + r:
        return (h * m - h * r + n * r) / 2
    return (h * n - h * r + m * r) / 2 if n + h < m + r else m * n / 2


def regression(m: int, h: int, n: int, r: int) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Its expected loss for inputs of unit covariance, at weights of rank r."""
    generator = torch.Generator().manual_seed(m + 10 * r)
    a, b = torch.zeros(h, m), torch.zeros(n, h)
    a[:r] = torch.linalg.qr(torch.randn(m, m, generator=generator))[0][:r]
    b[:, :r] = torch.linalg.qr(torch.randn(n, n, generator=generator))[0][:, :r]
    true = b @ a
    a.requires_grad_()
    b.requires_grad_()
    return lambda: 0.5 * (b @ a - true).square().sum(), a, b


@pytest.mark.parametrize(("m", "h", "n", "r"), [(5, 3, 4, 2), (6, 4, 6, 1), (6, 4, 6, 3), (2, 2, 6, 1), (6, 2, 2, 1)])
def test_of_reduced_rank_regression_it_is_aoyagis_and_watanabes(m: int, h: int, n: int, r: int) -> None:
    found = estimate(*regression(m, h, n, r), n=10**5, num_draws=3000, num_burnin=3000, num_chains=4)
    assert found.value == pytest.approx(of_regression(m, h, n, r), rel=0.08)
    assert found.value < (h * m + n * h) / 2  # half the number of parameters


def of_deep_network(sizes: tuple[int, ...], r: int) -> float:
    """A deep linear network of these widths at true rank r (Aoyagi 2024)."""
    spare = [size - r for size in sizes]
    for count in range(2, len(sizes) + 1):
        for chosen in itertools.combinations(range(len(sizes)), count):
            inside = [spare[j] for j in chosen]
            outside = [spare[j] for j in range(len(sizes)) if j not in chosen]
            depth, total = count - 1, sum(inside)
            is_it = total >= depth * max(inside)
            if outside:
                is_it &= max(inside) < min(outside) and total < depth * min(outside)
            if is_it:
                rest = total - (math.ceil(total / depth) - 1) * depth
                pairs = sum(a * b for a, b in itertools.combinations(inside, 2))
                first = (r * (sizes[0] + sizes[-1]) - r * r) / 2 + rest * (depth - rest) / (4 * depth)
                return first - depth * (depth - 1) / 4 * (total / depth) ** 2 + pairs / 2
    raise AssertionError(sizes)


def test_both_formulas_agree_for_two_layers() -> None:
    for m, h, n in itertools.product(range(1, 6), repeat=3):
        for r in range(min(m, h, n) + 1):
            assert of_deep_network((m, h, n), r) == pytest.approx(of_regression(m, h, n, r))


@pytest.mark.parametrize(
    ("sizes", "r", "expected", "within"), [((4, 3, 3, 4), 2, 6.5, 0.08), ((5, 5, 5, 5), 2, 11.0, 0.25)]
)
def test_of_a_deep_linear_network_it_is_aoyagis(sizes: tuple[int, ...], r: int, expected: float, within: float) -> None:
    """The more of the layers are degenerate, the lower it reads at this n: the corrections fall with log n only."""
    assert of_deep_network(sizes, r) == expected
    generator, weights = torch.Generator().manual_seed(sum(sizes) + r), []
    for a, b in itertools.pairwise(sizes):
        weights.append(torch.zeros(b, a))
        weights[-1][:r, :r] = torch.linalg.qr(torch.randn(r, r, generator=generator))[0]
    true = torch.linalg.multi_dot(weights[::-1])
    for weight in weights:
        weight.requires_grad_()
    found = estimate(
        lambda: 0.5 * (torch.linalg.multi_dot(weights[::-1]) - true).square().sum(),
        *weights,
        n=10**5,
        num_draws=2000,
        num_burnin=2000,
    )
    assert found.value == pytest.approx(expected, rel=within)


def test_a_network_of_higher_rank_and_a_less_degenerate_minimum_have_more() -> None:
    by_rank = [estimate(*regression(6, 4, 6, r), n=10**5, num_draws=1500, num_burnin=1500).value for r in (1, 2, 3)]
    assert by_rank == sorted(by_rank)
    values = []
    for power in (2, 1):
        w = torch.zeros(10, requires_grad=True)
        values.append(estimate(lambda w=w, power=power: (w ** (2 * power)).sum(), w, num_draws=1500).value)
    assert values[0] < values[1]


def test_batches_of_unequal_size_give_the_same_as_the_whole() -> None:
    torch.manual_seed(0)
    x = torch.randn(90, 4)
    model = nn.Linear(4, 1, bias=False)
    nn.init.zeros_(model.weight)
    y = 0.3 * torch.randn(90, 1)
    solution = torch.linalg.lstsq(x, y).solution
    with torch.no_grad():
        model.weight.copy_(solution.T)

    def of(batch: slice) -> Any:
        return lambda: (model(x[batch]) - y[batch]).square().mean()

    parts = [slice(0, 50), slice(50, 80), slice(80, 90)]
    batches = [(len(x[part]), of(part)) for part in parts]
    whole, split = (estimate(loss, model.weight, num_draws=3000) for loss in (of(slice(0, 90)), batches))
    assert split.loss == pytest.approx(whole.loss, rel=1e-6)
    assert split.value == pytest.approx(whole.value, rel=0.15)
    assert whole.value == pytest.approx(2, rel=0.15)


def noisy_regression(n: int, batch: int) -> tuple[Any, nn.Linear]:
    """Ten coefficients, at their least squares, in batches: 5 in truth."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 10, generator=generator)
    y = x.sum(1, keepdim=True) + torch.randn(n, 1, generator=generator)
    model = nn.Linear(10, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    places = [slice(i, i + batch) for i in range(0, n, batch)]
    return [(x[place], y[place]) for place in places], model


@pytest.mark.parametrize("batch", [1024, 64, 16, 4])
def test_small_batches_give_the_same_as_the_whole(batch: int) -> None:
    data, model = noisy_regression(1024, batch)

    def loss(net: nn.Module, pair: Any) -> torch.Tensor:
        return torch.as_tensor(0.5 * (net(pair[0]) - pair[1]).square().mean())

    found = learning_coefficient(model, loss, data, num_samples=1024, num_draws=1500, localization=0.0)
    assert found.value == pytest.approx(5 / (1 - 0.2 / 4), rel=0.08)
    assert found.is_valid, found.reason


def test_a_chain_too_short_for_the_soft_directions_is_not_valid() -> None:
    h = torch.logspace(-4, 1, 400)
    w = torch.zeros(400, requires_grad=True)
    short = estimate(lambda: 0.5 * (h * w * w).sum(), w, n=50_000, num_chains=2)
    assert not short.is_valid
    assert "time to reach" in short.reason
    expected = 0.5 * float((short.n_beta * h / (short.n_beta * h + short.localization)).sum())
    assert short.reached * expected == pytest.approx(short.value, rel=0.15)  # it is told how short it falls
    held = estimate(lambda: 0.5 * (h * w * w).sum(), w, n=50_000, num_chains=2, localization=2000.0)
    assert held.is_valid, held.reason


def test_chains_that_disagree_are_not_valid() -> None:
    rows = torch.tensor([[1.0, 1.6], [99.0, 101.0], [3.0, 3.6], [399.0, 401.0]], dtype=torch.float64)
    w = torch.zeros(3, requires_grad=True)
    part = replace(estimate(lambda: (w * w).sum(), w, num_draws=2), draws=rows)
    found = joined([part])
    assert not found.is_valid
    assert "disagree" in found.reason


def test_one_draw_without_burnin_is_no_estimate() -> None:
    w = torch.zeros(3, requires_grad=True)
    found = estimate(lambda: (w * w).sum(), w, num_draws=1, num_burnin=0)
    assert not found.is_valid


def test_a_loader_that_shuffles_and_a_last_small_batch_give_the_same_twice() -> None:
    (x, y), model = noisy_regression(70, 70)[0][0], noisy_regression(70, 70)[1]
    loader = DataLoader(TensorDataset(x, y), 32, shuffle=True)

    def loss(net: nn.Module, pair: Any) -> torch.Tensor:
        return torch.as_tensor(0.5 * (net(pair[0]) - pair[1]).square().mean())

    state = torch.get_rng_state()
    first, second = (
        learning_coefficient(model, loss, loader, num_samples=70, num_draws=20, num_burnin=20) for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert first == second
    assert first.loss == pytest.approx(loss(model, (x, y)).item(), rel=1e-5)
    counted = learning_coefficient(
        model, loss, loader, num_samples=70, num_draws=20, num_burnin=20, batch_size_fn=lambda batch: 1
    )
    assert counted.loss != pytest.approx(first.loss, rel=1e-5)


def test_the_quadratic_has_an_error_or_no_value_and_rounding_is_no_negative_curvature() -> None:
    h = torch.cat([torch.zeros(20), torch.ones(20)])
    w = torch.zeros(40, requires_grad=True)
    found = estimate(lambda: 0.5 * (h * w * w).sum(), w, localization=0.0, num_draws=1500)
    assert found.lambda_min == 0
    assert found.quadratic is None
    assert found.is_valid, found.reason


def test_complex_parameters_count_as_pairs_of_reals() -> None:
    w = torch.zeros(10, dtype=torch.complex64, requires_grad=True)
    found = estimate(lambda: w.abs().square().sum(), w, localization=0.0, num_draws=2000)
    assert found.value == pytest.approx(10 / (1 - 0.2 / 4), rel=0.06)


def test_a_saddle_is_not_valid_and_says_why() -> None:
    w = torch.zeros(2, requires_grad=True)
    loss = lambda: (w[0] ** 2 - w[1] ** 2 + w[1] ** 4).sum()  # noqa: E731
    free = estimate(loss, w, localization=1.0, step_size=1e-3)
    assert not free.is_valid
    assert "raise `localization`" in free.reason
    held = estimate(loss, w)
    assert held.localization == pytest.approx(2 * held.n_beta * 2, rel=1e-3)
    assert free.lambda_min == pytest.approx(-2, rel=1e-3)


def test_a_slope_and_a_chain_that_has_not_settled_and_one_that_is_lost_are_not_valid() -> None:
    w = torch.zeros(3, requires_grad=True)
    slope = estimate(lambda: (w + (w * w)).sum(), w)
    assert not slope.is_valid
    assert "not at a minimum" in slope.reason
    short = estimate(lambda: 0.5 * (1e-3 * w * w).sum() * 30, w, num_burnin=0, num_draws=60, step_size=1e-4)
    assert "raise `num_burnin`" in short.reason
    drifting = replace(estimate(lambda: (w * w).sum(), w), draws=torch.arange(40, dtype=torch.float64).repeat(3, 1))
    assert "have not settled" in joined([drifting]).reason
    lost = estimate(lambda: (w**4).sum(), w, step_size=50.0, num_draws=200)
    assert "lower `step_size`" in lost.reason
    assert not lost.is_valid


def test_the_same_seed_gives_the_same_digits_and_nothing_is_moved() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 1))
    x = torch.randn(20, 3)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()

    def loss(net: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(net(batch)).square().mean()

    def run(seed: int) -> LearningCoefficient:
        return learning_coefficient(
            model, loss, [x[:10], x[10:]], num_samples=20, num_draws=20, num_burnin=5, seed=seed
        )

    first, second, other = run(0), run(0), run(1)
    assert first == second
    assert torch.equal(first.draws, second.draws)
    assert first.value != other.value
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert first.loss == pytest.approx(loss(model.eval(), x).item(), rel=1e-5)


def test_a_part_of_the_parameters_may_be_chosen() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 3, bias=False)})
    for parameter in model.parameters():
        nn.init.zeros_(parameter)

    def loss(net: nn.Module, batch: Any) -> torch.Tensor:
        return torch.stack([parameter.square().sum() for parameter in net.parameters()]).sum()

    found = learning_coefficient(model, loss, [None], num_samples=1000, params="b.*", num_draws=3000, localization=0.0)
    assert found.value == pytest.approx(3, rel=0.15)


def test_estimates_of_several_processes_are_joined_chain_by_chain() -> None:
    w = torch.zeros(5, requires_grad=True)
    parts = [estimate(lambda: (w * w).sum(), w, num_chains=2, seed=seed) for seed in (0, 1)]
    whole = joined(parts)
    assert whole.chains == (*parts[0].chains, *parts[1].chains)
    assert whole.value == pytest.approx(sum(part.value for part in parts) / 2)
    assert whole.draws.shape == (4, 500)


def weights(net: nn.Module, batch: Any) -> torch.Tensor:
    return torch.stack([parameter.sum() for parameter in net.parameters()]).sum()


@pytest.mark.parametrize(
    "options",
    [
        *({"num_samples": 1}, {"num_chains": 0}, {"num_draws": 0}, {"num_burnin": -1}, {"seed": -1}),
        *({"step_size": -1.0}, {"localization": math.nan}, {"n_beta": "a"}, {"params": "x"}, {"step_size": 0.0}),
    ],
)
def test_unfit_arguments_are_refused(options: dict[str, Any]) -> None:
    given = {"num_samples": 10} | options
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"learning_coefficient.*{name}"):
        learning_coefficient(nn.Linear(2, 2), weights, [None], **given)


def test_a_loss_that_is_not_finite_no_data_and_no_module_are_refused() -> None:
    model: Any = nn.Linear(2, 2)
    with pytest.raises(NotFiniteError, match="not finite"):
        learning_coefficient(model, lambda net, batch: weights(net, batch) * math.nan, [None], num_samples=10)
    with pytest.raises(ValueError, match="at least one batch"):
        learning_coefficient(model, weights, [], num_samples=10)
    nothing: Any = None
    with pytest.raises(ValueError, match=r"learning_coefficient\(data"):
        learning_coefficient(model, weights, nothing, num_samples=10)
    for wrong in (lambda net, batch: 1.0, lambda net, batch: net.weight):
        unfit: Any = wrong
        with pytest.raises(ValueError, match=r"returns a 0-d tensor"):
            learning_coefficient(model, unfit, [None], num_samples=10)
    with pytest.raises(ValueError, match="a module"):
        learning_coefficient(3, weights, [None], num_samples=10)  # type: ignore[arg-type]


def test_the_formula_for_regression_holds_in_its_limits() -> None:
    """Full rank is regular on the image: half of the dimension of the matrices of that rank."""
    for m, n in itertools.product((2, 3, 5), repeat=2):
        assert of_regression(m, min(m, n), n, min(m, n)) == m * n / 2
