"""The loss along directions, against closed forms and dense eigenvectors; the weights are put back to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_ww.curvature import HessianOperator, loss_landscape, loss_plane, ritz_directions
from lightning_ww.curvature.landscape import Direction


def quadratic(h: torch.Tensor) -> tuple[Any, torch.Tensor]:
    torch.manual_seed(0)
    q = torch.linalg.qr(torch.randn(len(h), len(h), dtype=torch.float64))[0]
    w = torch.randn(len(h), dtype=torch.float64, requires_grad=True)
    return lambda: 0.5 * (h * (q.T @ w).square()).sum(), w


def test_directions_are_the_dense_matrix_eigenvectors() -> None:
    h = torch.tensor([-3.0, -0.01, 0.5, 1.0, 4.0, 9.0], dtype=torch.float64)
    loss, w = quadratic(h)
    found = ritz_directions(HessianOperator(loss, [w]), num_steps=6)
    dense = torch.autograd.functional.hessian(at, w.detach().clone())  # type: ignore[no-untyped-call]
    values, vectors = torch.linalg.eigh(dense)
    expected = {"largest": 5, "second largest": 4, "smallest": 0, "closest to zero": 1}
    assert [one.name for one in found] == list(expected)
    for one in found:
        place = expected[one.name]
        assert one.eigenvalue == pytest.approx(float(values[place]), abs=1e-8)
        assert abs(float(one.vector @ vectors[:, place])) == pytest.approx(1, abs=1e-6)
        assert one.residual < 1e-6


def at(x: torch.Tensor) -> torch.Tensor:
    h = torch.tensor([-3.0, -0.01, 0.5, 1.0, 4.0, 9.0], dtype=torch.float64)
    torch.manual_seed(0)
    q = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    return torch.as_tensor(0.5 * (h * (q.T @ x).square()).sum())


def test_along_a_direction_a_quadratic_is_the_parabola_of_its_eigenvalue() -> None:
    loss, w = quadratic(torch.tensor([-3.0, -0.01, 0.5, 1.0, 4.0, 9.0], dtype=torch.float64))
    directions = ritz_directions(HessianOperator(loss, [w]), num_steps=6)
    before = w.detach().clone()
    (slope,) = torch.autograd.grad(loss(), w)
    found = loss_landscape({"loss": loss, "twice": lambda: 2 * loss()}, [w], directions, distance=2.0, num_points=5)
    assert torch.equal(w.detach(), before)
    assert found.distances.tolist() == [-2, -1, 0, 1, 2]
    for i, one in enumerate(directions):
        expected = loss().detach() + found.distances * (slope @ one.vector) + one.eigenvalue / 2 * found.distances**2
        assert torch.allclose(found.values[0, i], expected, rtol=1e-8, atol=1e-8)
    assert torch.allclose(found.values[1], 2 * found.values[0])


def test_a_plane_has_the_value_at_the_sum_of_both_steps() -> None:
    loss, w = quadratic(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
    directions = ritz_directions(HessianOperator(loss, [w]), num_steps=3)
    pair = directions[0], directions[1]
    found = loss_plane({"loss": loss}, [w], pair, num_points=3)
    assert found.is_plane
    start = w.detach().clone()
    for i, s in enumerate(found.distances.tolist()):
        for j, t in enumerate(found.distances.tolist()):
            with torch.no_grad():
                w.copy_(start + s * pair[0].vector + t * pair[1].vector)
            assert float(found.values[0, i, j]) == pytest.approx(loss().item(), rel=1e-10)
    with torch.no_grad():
        w.copy_(start)


def test_parameters_of_several_shapes_move_together_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(9, 3)
    params = list(model.parameters())
    before = [p.detach().clone() for p in params]
    vector = torch.randn(sum(p.numel() for p in params))
    one = Direction("mine", vector / vector.norm(), 0.0, 0.0)
    loss: Any = lambda: model(x).square().mean()  # noqa: E731
    found = loss_landscape({"loss": loss}, params, [one], num_points=3)
    assert not found.is_plane
    assert all(torch.equal(p.detach(), own) for p, own in zip(params, before, strict=True))
    with torch.no_grad():
        moved: Any = torch.cat([p.flatten() for p in params]) + one.vector
        own: Any = params
        for p, part in zip(own, _parts(moved, own), strict=True):
            p.copy_(part.view_as(p))
    assert float(found.values[0, 0, 2]) == pytest.approx(loss().item(), rel=1e-5)
    assert all(p.grad is None for p in params)


def test_a_function_that_fails_is_nan_and_the_weights_come_back() -> None:
    w = torch.ones(2, requires_grad=True)

    def loss() -> torch.Tensor:
        if float(w.detach().abs().max()) > 1.2:
            raise ValueError("too far")
        return w.square().sum()

    found = loss_landscape({"loss": loss}, [w], [Direction("x", torch.tensor([1.0, 0.0]), 2.0, 0.0)], num_points=3)
    assert found.values[0, 0].isnan().tolist() == [False, False, True]
    assert torch.equal(w.detach(), torch.ones(2))


def test_tables_have_a_row_for_each_point() -> None:
    loss, w = quadratic(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
    directions = ritz_directions(HessianOperator(loss, [w]), num_steps=3)
    frame = loss_landscape({"loss": loss}, [w], directions, num_points=5).to_pandas()
    assert list(frame.columns) == ["direction", "eigenvalue", "distance", "loss"]
    assert len(frame) == 5 * len(directions)
    frame = loss_plane({"loss": loss}, [w], (directions[0], directions[1]), num_points=3).to_pandas()
    assert list(frame.columns) == ["first", "second", "loss"]
    assert len(frame) == 9


def test_unfit_arguments_are_refused() -> None:
    loss, w = quadratic(torch.tensor([1.0, 2.0], dtype=torch.float64))
    one = Direction("x", torch.ones(3), 0.0, 0.0)
    with pytest.raises(ValueError, match=r"loss_landscape\(directions=...\)`: expected vectors of 2 elements"):
        loss_landscape({"loss": loss}, [w], [one])
    with pytest.raises(ValueError, match="num_points"):
        loss_landscape({"loss": loss}, [w], [Direction("x", torch.ones(2), 0.0, 0.0)], num_points=4)
    for functions, directions in (({}, [one]), ({"loss": loss}, [])):
        nothing: Any = directions
        with pytest.raises(ValueError, match="at least one"):
            loss_landscape(functions, [w], nothing)
    three: Any = (one, one, one)
    with pytest.raises(ValueError, match="two directions"):
        loss_plane({"loss": loss}, [w], three)
    fit = Direction("x", torch.ones(2, dtype=torch.float64), 0.0, 0.0)
    for unfit in (lambda: w * 2, lambda: 1.0):
        wrong: Any = unfit
        with pytest.raises(ValueError, match="0-d tensor"):
            loss_landscape({"loss": wrong}, [w], [fit])
    steps: Any = 2.5
    with pytest.raises(ValueError, match="num_steps"):
        ritz_directions(HessianOperator(loss, [w]), num_steps=steps)
    with pytest.raises(ValueError, match=r"loss_plane\(distance="):
        loss_plane({"loss": loss}, [w], (one, one), distance=-1.0)


def _parts(flat: torch.Tensor, like: list[Any]) -> list[torch.Tensor]:
    ends = torch.tensor([p.numel() for p in like]).cumsum(0).tolist()
    return [flat[end - p.numel() : end] for end, p in zip(ends, like, strict=True)]


def test_a_function_that_fails_at_the_weights_themselves_is_an_error() -> None:
    w = torch.ones(2, requires_grad=True)

    def broken() -> torch.Tensor:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        loss_landscape({"loss": broken}, [w], [Direction("x", torch.tensor([1.0, 0.0]), 2.0, 0.0)], num_points=3)
    assert torch.equal(w.detach(), torch.ones(2))


def test_complex_parameters_move_by_pairs_of_reals() -> None:
    w = torch.zeros(2, dtype=torch.complex64, requires_grad=True)
    loss: Any = lambda: (w.real**2).sum() + 3 * (w.imag**2).sum()  # noqa: E731
    directions = ritz_directions(HessianOperator(loss, [w]), num_steps=4)
    found = loss_landscape({"loss": loss}, [w], directions, num_points=3)
    for i, one in enumerate(directions):
        assert float(found.values[0, i, 2]) == pytest.approx(one.eigenvalue / 2, rel=1e-4)
    assert not w.detach().abs().any()
