"""The numbers of a spectral density that depend on its whole bulk, with their errors, and its outliers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from lightning_ww import _checks
from lightning_ww.curvature.quadrature import UNCONVERGED

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from lightning_ww.curvature.quadrature import Quadrature

EstimateName = Literal["negative_mass", "near_zero_mass", "log_pseudodet", "effective_dimension", "condition"]
"""The numbers that have an error."""

MASSES = ("negative_mass", "near_zero_mass")

MOST_OF_MASS, MOST_OF_VALUE, MOST_OF_COUNT = 0.1, 0.25, 0.1
"""The largest errors: of a mass; of another number, as a share of it, or of the number of positive eigenvalues."""

WIDEST_MEDIAN = 4.0
"""The largest ratio of the two ends between which the median of the positive eigenvalues lies."""

CLEAR_GAP, EQUAL_GAP = 2.5, 0.95
"""The smallest relative gap below outliers, and the share of the widest at which a gap higher up is preferred."""

EQUAL_NODES = 1e-5
"""Nodes closer than this, relative to the largest, are one eigenvalue: a repeated one comes again after enough steps."""

FLOOR = 1e-6
"""The share of the largest eigenvalue below which the next one does not widen a gap any more."""


@dataclass(frozen=True)
class Estimate:
    """A number with its error."""

    value: float | None  # None: it does not exist, for the reason
    error: float | None = None  # None: unknown
    reason: str = ""  # why it is not to be shown; "" if it is

    @property
    def shown(self) -> float | None:
        """The value, unless its error makes it worthless."""
        return None if self.reason else self.value

    @property
    def in_words(self) -> str:
        """The number with its error, or the reason why it is not shown."""
        if self.shown is None:
            return f"– ({self.reason})"
        return f"{self.shown:.4g}" + ("" if self.error is None else f" ± {self.error:.2g}")


@dataclass(frozen=True)
class Outliers:
    """The eigenvalues above the widest relative gap."""

    count: int
    bulk_edge: float  # the largest eigenvalue below the gap
    gap: float  # the ratio of its two sides


def estimate(density: Quadrature, name: EstimateName, num_samples: int | None, gamma: float) -> Estimate:
    """A number of a density with its error, as `SpectralDensity.estimate` documents it."""
    _checks.choice("estimate", "name", name, get_args(EstimateName))
    if name == "condition":
        return _condition(density)
    tol = density.tol
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "negative_mass": lambda nodes: (nodes < -tol).double(),
        "near_zero_mass": lambda nodes: (nodes.abs() <= tol).double(),
        "log_pseudodet": lambda nodes: torch.where(nodes > tol, nodes.clamp(min=tol or 1.0).log(), 0.0),
    }
    if name == "effective_dimension":
        n = _checks.count("estimate", "num_samples", num_samples or 0, least=2)
        c = gamma * math.log(n) / n
        functions[name] = lambda nodes: nodes.clamp(min=0) / (nodes.clamp(min=0) + c)
    function, unit = functions[name], 1 / density.dim if name in MASSES else 1.0

    def number(of: Quadrature) -> float:
        return unit * of.dim * float((of.weights * function(of.nodes)).sum())

    value = number(density)
    if not density.is_gaussian:
        return Estimate(value)
    scatter = unit * density.scatter(function(density.nodes))
    changes = [abs(value - number(less)) for less in _fewer(density)]
    if not density.is_exact:
        changes.append(_unseen(density, name, function))
    error = math.hypot(max(changes, default=0.0), 2 * scatter)
    positive = density.dim * float(density.weights[density.nodes > tol].sum())
    most = MOST_OF_MASS if name in MASSES else max(MOST_OF_VALUE * abs(value), MOST_OF_COUNT * positive)
    return Estimate(value, error, "" if error <= most else _too_uncertain(density, f"its error is {error:.2g}"))


def _unseen(density: Quadrature, name: str, function: Callable[[Tensor], Tensor]) -> float:
    """The part of a number that nodes may be too coarse to show, however many steps less are made.

    A band around zero without a node holds a share of its neighbors' weights, by its width in their distance. The node
    closest to zero stands for eigenvalues down to zero if its residual reaches that far: some may be within the band, and
    not count in the pseudo-determinant.
    """
    total = 0.0
    for probe in range(density.num_probes):
        own = density.probes == probe
        nodes, weights, residuals = density.nodes[own], density.weights[own], density.residuals[own]
        closest = int(nodes.abs().argmin())
        if name == "near_zero_mass" and not (nodes.abs() <= density.tol).any():
            place = int((nodes < 0).sum())
            if 0 < place < nodes.numel():
                share = 2 * density.tol / float(nodes[place] - nodes[place - 1])
                total += min(1.0, share) * float(weights[place - 1 : place + 1].sum())
            elif nodes[closest].abs() - residuals[closest] <= density.tol:  # some of its eigenvalues may be in the band
                total += float(weights[closest])
        elif name == "log_pseudodet" and (nodes > density.tol).any():
            smallest = int(torch.where(nodes > density.tol, nodes, torch.inf).argmin())
            if nodes[smallest] - residuals[smallest] <= density.tol:  # some of its eigenvalues may not count
                total += density.dim * float(weights[smallest] * nodes[smallest].log().abs()) / 2
        elif name == "effective_dimension":
            lower = (nodes[closest] - residuals[closest]).clamp(min=0)
            change = function(nodes[closest]) - function(lower)
            total += density.dim * float(weights[closest] * change.abs()) / 2
    return total


def find_outliers(density: Quadrature) -> Outliers | None:
    """The outliers of the probe with the largest eigenvalue, or ``None`` if there is no clear gap.

    Of the ratios of neighbors, from the largest eigenvalue down to the last converged one, the first that is nearly the
    largest is the gap. It must be clear, and half the steps must find it, too.
    """
    found = _widest_gap(density)
    fewer = None if density.is_exact else _widest_gap(density.leading(math.ceil(density.num_steps / 2)))
    is_confirmed = density.is_exact or (fewer is not None and found is not None and fewer.count == found.count)
    return found if is_confirmed else None


def _widest_gap(density: Quadrature) -> Outliers | None:
    own = density.probes == density.probes[density.nodes.argmax()]
    values, residuals = density.nodes[own].flip(0).tolist(), density.residuals[own].flip(0).tolist()
    most = max(1, density.dim // 10)
    nodes = zip(values, residuals, [values[0] * 2, *values], strict=False)
    pairs = [(v, r) for v, r, before in nodes if before - v > EQUAL_NODES * abs(values[0])]  # equal ones once
    values = [v for v, _ in pairs]
    count = next((i for i, (v, r) in enumerate(pairs) if v <= density.tol or r > UNCONVERGED * v), len(pairs))
    known = values[: min(count, most)]
    if not known:
        return None
    below = [*values[1:], 0.0][: len(known)]  # of an invariant space, nothing is known below the last
    floor = FLOOR * values[0]
    gaps = [value / max(next_one, floor) for value, next_one in zip(known, below, strict=True)]
    k = next(i for i, gap in enumerate(gaps) if gap >= EQUAL_GAP * max(gaps))
    if max(gaps) <= CLEAR_GAP:
        return None
    return Outliers(k + 1, below[k] if below[k] > floor else 0.0, gaps[k])


def _condition(density: Quadrature) -> Estimate:
    """The sharpness over the weighted median of the positive nodes; its error is that of the median."""
    tol = density.tol
    median = _quantile(density, tol, 0.5)
    if median is None:
        return Estimate(None, None, "no eigenvalue is positive")
    value = density.sharpness / median
    if not density.is_gaussian:
        return Estimate(value)
    positive = density.nodes > tol
    total = float(density.weights[positive].sum())
    # of the shares up to the median and below it, as the median may be the largest node, up to which there is everything
    parts = ((positive & (density.nodes <= median)).double(), (positive & (density.nodes < median)).double())
    scatter = max(density.scatter(part) for part in parts) / density.dim / total
    ends = [_quantile(density, tol, 0.5 - 2 * scatter), _quantile(density, tol, 0.5 + 2 * scatter)]
    ends += [_quantile(fewer, tol, 0.5) for fewer in _fewer(density)]
    known = [end for end in (median, *ends) if end is not None]
    low, high = min(known), max(known)
    error = max(density.sharpness / low - value, value - density.sharpness / high)
    reason = f"the median of the positive eigenvalues lies between {low:.2g} and {high:.2g}"
    return Estimate(value, error, "" if high <= WIDEST_MEDIAN * low else _too_uncertain(density, reason))


def _quantile(density: Quadrature, tol: float, share: float) -> float | None:
    """The node above ``tol`` at which the cumulative weight of such nodes reaches a share of their total."""
    above = density.nodes > tol
    if not above.any():
        return None
    nodes, order = density.nodes[above].sort()
    cumulative = density.weights[above][order].cumsum(0)
    wanted = min(max(share, 0.0), 1.0) * cumulative[-1]
    return float(nodes[torch.searchsorted(cumulative, wanted).clamp(max=nodes.numel() - 1)])


def _fewer(density: Quadrature) -> list[Quadrature]:
    """The densities from half the steps and from one step less; none if further steps would change nothing."""
    steps = density.num_steps
    if density.is_exact or steps < 2:
        return []
    return [density.leading(count) for count in dict.fromkeys((math.ceil(steps / 2), steps - 1))]


def _too_uncertain(density: Quadrature, said: str) -> str:
    return f"{said}: raise `num_steps` ({density.num_steps})"
