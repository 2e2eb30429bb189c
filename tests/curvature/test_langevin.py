"""The chain's own step, against its formula and its stationary law; the way back, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_ww.curvature.langevin import Anchor, Chain, Step


def chain_of(losses: Any, params: list[torch.Tensor], seed: int) -> Chain:
    return Chain(losses, params, Anchor.of(losses, params), seed)


def test_a_step_is_that_of_the_formula() -> None:
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    chain = chain_of([(1.0, lambda: (w**3).sum())], [w], seed=5)
    step = Step(0.01, 3.0, 7.0)
    noise = torch.empty(2, dtype=torch.float64).normal_(generator=(source := torch.Generator().manual_seed(5)))
    start = w.detach().clone()
    first = start - 0.005 * (7 * 3 * start**2) + 0.1 * noise
    assert chain.run(1, step).tolist() == [0.0]  # at the weights themselves
    assert torch.allclose(w.detach(), first, rtol=1e-12)
    before = w.detach().clone()
    noise2 = torch.empty(2, dtype=torch.float64).normal_(generator=source)
    assert chain.run(1, step).tolist() == [pytest.approx(((before**3).sum() - (start**3).sum()).item())]
    second = before - 0.005 * (7 * 3 * before**2 + 3 * (before - start)) + 0.1 * noise2
    assert torch.allclose(w.detach(), second, rtol=1e-12)
    chain.go_back()
    assert torch.equal(w.detach(), start)


def test_each_batch_is_drawn_once_before_any_again_and_counts_by_its_share() -> None:
    w, drawn = torch.zeros(1, requires_grad=True), []

    def loss(place: int) -> Any:
        def evaluated() -> torch.Tensor:
            drawn.append(place)
            return w.sum() + place

        return evaluated

    losses = [(share, loss(i)) for i, share in enumerate((0.5, 0.3, 0.2))]
    anchor = Anchor.of(losses, [w])
    assert anchor.losses == pytest.approx([0, 0.9, 1.2])
    assert [float(slopes[0]) for slopes in anchor.slopes if slopes[0] is not None] == pytest.approx([1.5, 0.9, 0.6])
    assert float(anchor.mean[0]) == pytest.approx(1)
    drawn.clear()
    Chain(losses, [w], anchor, seed=0).run(9, Step(0.0, 0.0, 1.0))
    assert all(sorted(drawn[i : i + 3]) == [0, 1, 2] for i in (0, 3, 6))


def test_the_noise_of_batches_does_not_widen_the_chain() -> None:
    """Batches whose minima lie far apart: without control variates the variance would be 51 times as large."""
    generator, step = torch.Generator().manual_seed(0), Step(0.02, 0.0, 10.0)
    centers = 10 * torch.randn(8, generator=generator)
    w = torch.full((300,), float(centers.mean()), requires_grad=True)
    losses = [(1 / 8, lambda c=c: 0.5 * (w - c).square().sum()) for c in centers]
    chain, squares = chain_of(losses, [w], seed=1), []
    for _ in range(200):
        chain.run(5, step)
        squares.append(float((w.detach() - centers.mean()).square().mean()))
    expected = 1 / (10 * (1 - 0.02 * 10 / 4))
    assert sum(squares[50:]) / 150 == pytest.approx(expected, rel=0.03)


def test_a_lost_chain_ends_early() -> None:
    w, count = torch.ones(1, requires_grad=True), [0]

    def loss() -> torch.Tensor:
        count[0] += 1
        return (w**4).sum()

    seen = chain_of([(1.0, loss)], [w], seed=0).run(10_000, Step(50.0, 0.0, 10.0))
    assert seen.shape == (10_000,)
    assert not torch.isfinite(seen[-1])
    assert count[0] < 200


def test_its_stationary_variance_is_that_of_the_discrete_chain_in_closed_form() -> None:
    """``Var = 1/(A(1 − εA/4))`` with A = nβh + γ."""
    h, step = torch.tensor([1.0, 5.0]), Step(0.05, 2.0, 4.0)
    w = torch.zeros(400, 2, requires_grad=True)  # 400 chains at a time
    chain = chain_of([(1.0, lambda: 0.5 * (h * w * w).sum())], [w], seed=1)
    squares = []
    for _ in range(300):
        chain.run(5, step)
        squares.append(w.detach().square().mean(0))
    pull = step.n_beta * h + step.localization
    expected = 1 / (pull * (1 - step.size * pull / 4))
    assert torch.stack(squares[50:]).mean(0).tolist() == pytest.approx(expected.tolist(), rel=0.01)


def test_a_parameter_that_the_loss_does_not_reach_moves_by_noise_and_localization_alone() -> None:
    w, unused = torch.zeros(1, requires_grad=True), torch.zeros(3, requires_grad=True)
    chain = chain_of([(1.0, lambda: (w**2).sum())], [w, unused], seed=0)
    chain.run(3, Step(0.1, 1.0, 1.0))
    assert bool((unused != 0).all())
    chain.go_back()
    assert not unused.detach().any()
