"""The loss along directions from the current weights: along the curvature's own (Ritz) vectors, and on planes of two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError
from lightning_ww._pandas import data_frame
from lightning_ww.curvature.krylov import lanczos
from lightning_ww.curvature.operators import real

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from lightning_ww.curvature.operators import CurvatureOperator

Functions = Mapping[str, Callable[[], Tensor]]
"""Functions ``() -> 0-d tensor`` of the current weights, by name: ``"train loss"``, ``"validation accuracy"``."""


@dataclass(frozen=True)
class Direction:
    """A direction of unit length, and what is known of it."""

    name: str  # "largest", "second largest", "smallest", "closest to zero"
    vector: Tensor  # (P,)
    eigenvalue: float
    residual: float  # an eigenvalue lies within this distance of it


@dataclass(frozen=True)
class Landscape:
    """The values of functions along directions, or on the plane of two."""

    names: tuple[str, ...]  # of the functions
    directions: tuple[Direction, ...]
    distances: Tensor  # (n,), float64
    values: Tensor  # (functions, directions, n); of a plane (functions, n, n), the first direction along the rows
    is_plane: bool = False  # whether it is on the plane of two directions, rather than along each

    def to_pandas(self) -> pandas.DataFrame:
        """Return a table with a row for each point.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        frame = data_frame("Landscape.to_pandas")
        rows: list[dict[str, Any]] = []
        for i, first in enumerate(self.distances.tolist() if self.is_plane else self.directions):
            for j, t in enumerate(self.distances.tolist()):
                numbers = {name: float(self.values[k, i, j]) for k, name in enumerate(self.names)}
                if isinstance(first, Direction):
                    rows.append({"direction": first.name, "eigenvalue": first.eigenvalue, "distance": t, **numbers})
                else:
                    rows.append({"first": first, "second": t, **numbers})
        return frame(rows)

    def plot(self) -> Figure:
        """Draw the functions along each direction, with the parabola of its curvature; of a plane, lines of equal value.

        Returns:
            A matplotlib figure that pyplot does not manage.
        """
        from lightning_ww.curvature.plots.landscape import landscape_figure

        return landscape_figure(self)


def ritz_directions(operator: CurvatureOperator, num_steps: int = 30, seed: int = 0) -> tuple[Direction, ...]:
    """The Ritz vectors of the two largest, the smallest, and the closest to zero of an operator's Ritz values.

    Args:
        operator: The operator, such as a `HessianOperator`.
        num_steps: The number of Lanczos steps. Default: ``30``.
        seed: The seed of the start vector. Default: ``0``.

    Returns:
        At most four different directions, fewer for an operator of fewer eigenvalues.
    """
    _checks.count("ritz_directions", "num_steps", num_steps, least=1)
    _checks.count("ritz_directions", "seed", seed, least=0)
    start = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(seed))
    krylov = lanczos(lambda v: operator @ v, start.to(dtype=operator.dtype, device=operator.device), num_steps)
    values, _, _ = krylov.ritz()
    k = values.numel()
    named = {"largest": k - 1, "second largest": k - 2, "smallest": 0, "closest to zero": int(values.abs().argmin())}
    places: dict[int, str] = {}
    for name, place in named.items():
        if place >= 0 and place not in places:
            places[place] = name
    chosen, vectors, residuals = krylov.pairs(list(places))
    rows = zip(places.values(), vectors, chosen.tolist(), residuals.tolist(), strict=True)
    return tuple(Direction(*row) for row in rows)


def loss_landscape(
    functions: Functions,
    params: Sequence[Tensor],
    directions: Sequence[Direction],
    *,
    distance: float = 1.0,
    num_points: int = 21,
) -> Landscape:
    """Evaluate functions of the weights along directions.

    The parameters are moved in place, and put back to the bit.

    Args:
        functions: The functions by name.
        params: The parameters, leaves, as the operator was made of.
        directions: The directions, as `ritz_directions` gives them.
        distance: The largest distance from the weights, on both sides. Default: ``1`` (Granziol et al.).
        num_points: The number of points along each, an odd one, so that the weights themselves are among them. Default:
            ``21``.

    Returns:
        The values; those of a function that fails away from the weights are NaN.

    Raises:
        ArgumentError: If an argument is out of its domain, or a direction does not fit the parameters. It is a `ValueError`.

    References:
        Granziol et al. (2019), Deep Curvature Suite, arXiv:1912.09656.

    Example:
        >>> from lightning_ww.curvature import HessianOperator
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> loss = lambda: w[0] ** 2 + 3 * w[1] ** 2
        >>> found = loss_landscape({"loss": loss}, [w], ritz_directions(HessianOperator(loss, [w])), num_points=3)
        >>> round(found.directions[0].eigenvalue, 3), found.distances.tolist()
        (6.0, [-1.0, 0.0, 1.0])
    """
    at = _distances("loss_landscape", functions, params, directions, distance, num_points)
    with _moving(params) as move:
        rows = [[_values(functions, move, [(t, one.vector)]) for t in at.tolist()] for one in directions]
    return Landscape(tuple(functions), tuple(directions), at, torch.tensor(rows, dtype=torch.float64).permute(2, 0, 1))


def loss_plane(
    functions: Functions,
    params: Sequence[Tensor],
    directions: tuple[Direction, Direction],
    *,
    distance: float = 1.0,
    num_points: int = 21,
) -> Landscape:
    """Evaluate functions of the weights on the plane of two directions; the arguments are those of `loss_landscape`."""
    at = _distances("loss_plane", functions, params, directions, distance, num_points, exactly=2)
    first, second = (one.vector for one in directions)
    with _moving(params) as move:
        rows = [[_values(functions, move, [(s, first), (t, second)]) for t in at.tolist()] for s in at.tolist()]
    values = torch.tensor(rows, dtype=torch.float64).permute(2, 0, 1)
    return Landscape(tuple(functions), tuple(directions), at, values, is_plane=True)


def _distances(
    call: str,
    functions: Functions,
    params: Sequence[Tensor],
    directions: Sequence[Direction],
    distance: float,
    num_points: int,
    exactly: int | None = None,
) -> Tensor:
    """The distances, if the arguments are fit."""
    if not functions:
        raise _checks.unfit_object(call, "functions", "at least one function, by name", "none")
    if not directions or (exactly is not None and len(directions) != exactly):
        expected = "at least one direction" if exactly is None else "two directions"
        raise _checks.unfit_object(call, "directions", expected, f"{len(directions)}")
    if not _checks.number(call, "distance", distance) > 0:
        raise _checks.unfit(call, "distance", distance, "a number above 0")
    if _checks.count(call, "num_points", num_points, least=3) % 2 == 0:
        raise _checks.unfit(
            call, "num_points", num_points, "an odd number, so that the weights themselves are among them"
        )
    size = sum(real(parameter).numel() for parameter in params)
    for one in directions:
        if one.vector.numel() != size:
            got = f"one of {one.vector.numel()} elements"
            raise _checks.unfit_object(call, "directions", f"vectors of {size} elements, as many as `params` have", got)
    return torch.linspace(-distance, distance, num_points, dtype=torch.float64)


@contextmanager
def _moving(params: Sequence[Tensor]) -> Iterator[Callable[[Sequence[tuple[float, Tensor]]], None]]:
    """Give a function that puts the parameters at their own values plus multiples of directions; put them back."""
    start = [parameter.detach().clone() for parameter in params]
    sizes = [real(parameter).numel() for parameter in params]

    @torch.no_grad()
    def move(steps: Sequence[tuple[float, Tensor]]) -> None:
        for parameter, own in zip(params, start, strict=True):
            parameter.copy_(own)
        for factor, vector in steps:
            for parameter, part in zip(params, torch.split(vector, sizes), strict=True):
                own = real(parameter.detach())  # a view
                own.add_(part.view_as(own), alpha=factor)

    try:
        yield move
    finally:
        move([])


def _values(
    functions: Functions,
    move: Callable[[Sequence[tuple[float, Tensor]]], None],
    steps: Sequence[tuple[float, Tensor]],
) -> list[float]:
    """The values of the functions at a point, NaN where one fails, as an overflow may; at the weights it is an error."""
    move(steps)
    found: list[float] = []
    is_center = all(factor == 0 for factor, _ in steps)
    for name, function in functions.items():
        try:
            with torch.enable_grad():  # a loss may need gradients of its own
                value = function()
        except (ValueError, ArithmeticError, RuntimeError):
            if is_center:
                raise
            value = torch.tensor(float("nan"))
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ArgumentError(f"`functions={{{name!r}: ...}}`: expected a function that returns a 0-d tensor.")
        found.append(value.detach().item())
    return found
