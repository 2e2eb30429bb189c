"""The chain's own step, against its formula and its stationary law; the way back, to the bit."""

from __future__ import annotations

import pytest
import torch

from lightning_ww.curvature.langevin import Chain, Step


def test_a_step_is_that_of_the_formula() -> None:
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    chain = Chain([(1.0, lambda: (w**3).sum())], [w], seed=5)
    step = Step(0.01, 3.0, 7.0)
    noise = torch.randn(2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    start = w.detach().clone()
    first = start - 0.005 * (7 * 3 * start**2) + 0.1 * noise
    ((place, loss),) = chain.run(1, step)
    assert (place, float(loss)) == (0, float((start**3).sum()))
    assert torch.allclose(w.detach(), first, rtol=1e-14)
    before = w.detach().clone()
    noise2 = torch.randn(4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)[2:]
    chain.run(1, step)
    second = before - 0.005 * (7 * 3 * before**2 + 3 * (before - start)) + 0.1 * noise2
    assert torch.allclose(w.detach(), second, rtol=1e-14)
    chain.go_back()
    assert torch.equal(w.detach(), start)


def test_each_batch_is_drawn_once_before_any_again_and_counts_by_its_share() -> None:
    w = torch.zeros(1, requires_grad=True)
    losses = [(0.5, lambda: w.sum() + 1), (0.3, lambda: w.sum() + 1), (0.2, lambda: w.sum() + 1)]
    chain = Chain(losses, [w], seed=0)
    seen = chain.run(9, Step(0.0, 0.0, 1.0))
    places = [place for place, _ in seen]
    assert all(sorted(places[i : i + 3]) == [0, 1, 2] for i in (0, 3, 6))
    assert {place: pytest.approx(float(loss)) for place, loss in seen} == {0: 1.5, 1: 0.9, 2: 0.6}


def test_its_stationary_variance_is_that_of_the_discrete_chain_in_closed_form() -> None:
    """``Var = 1/(A(1 − εA/4))`` with A = nβh + γ."""
    h, step = torch.tensor([1.0, 5.0]), Step(0.05, 2.0, 4.0)
    w = torch.zeros(400, 2, requires_grad=True)  # 400 chains at a time
    chain = Chain([(1.0, lambda: 0.5 * (h * w * w).sum())], [w], seed=1)
    squares = []
    for _ in range(300):
        chain.run(5, step)
        squares.append(w.detach().square().mean(0))
    pull = step.n_beta * h + step.localization
    expected = 1 / (pull * (1 - step.size * pull / 4))
    assert torch.stack(squares[50:]).mean(0).tolist() == pytest.approx(expected.tolist(), rel=0.01)


def test_a_parameter_that_the_loss_does_not_reach_moves_by_noise_and_localization_alone() -> None:
    w, unused = torch.zeros(1, requires_grad=True), torch.zeros(3, requires_grad=True)
    chain = Chain([(1.0, lambda: (w**2).sum())], [w, unused], seed=0)
    chain.run(3, Step(0.1, 1.0, 1.0))
    assert bool((unused != 0).all())
    chain.go_back()
    assert not unused.detach().any()
