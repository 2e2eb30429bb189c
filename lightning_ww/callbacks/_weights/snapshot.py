"""The inputs of a measurement of the weights, here or in a process beside training."""

from __future__ import annotations

import secrets
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_ww.callbacks._monitor.ranks import owners
from lightning_ww.weights.analysis import measure, on_host, read, skip
from lightning_ww.weights.attention import Heads
from lightning_ww.weights.ingredients import Request
from lightning_ww.weights.report import WeightReport
from lightning_ww.weights.slices import SkippedLayer, Weight
from lightning_ww.weights.unchanged import Unchanged

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from lightning_ww.callbacks._monitor.worker import Worker
    from lightning_ww.weights.layers import Layer
    from lightning_ww.weights.metric import Need


@dataclass(frozen=True)
class Snapshot:
    """The inputs of a measurement of the weights."""

    weights: Iterable[Weight | SkippedLayer]  # in the background copies; those that could not be read, too
    skipped: Sequence[SkippedLayer]  # those that are skipped without being read
    request: Request
    levers: Mapping[Need, str]
    unchanged: Unchanged  # the reports of the last measurement

    def measure(self) -> WeightReport:
        """Measure the weights."""
        return measure(self.weights, self.skipped, self.request, self.levers, unchanged=self.unchanged)


@dataclass(frozen=True)
class Live:
    """The weights as they are while they are iterated over, none of them copied."""

    layers: Sequence[Layer]
    include_frozen: bool

    def __iter__(self) -> Iterator[Weight | SkippedLayer]:
        return read(self.layers, include_frozen=self.include_frozen)


def work(weight: Weight | SkippedLayer) -> float:
    """The seconds of a core that a layer takes, about; from its shape alone, so that all processes find the same.

    The terms are those of Python, of passes over the elements, of Gram matrices and of their eigenvalues (fitted to measured
    times, of which all that matters is their ratios).
    """
    if isinstance(weight, SkippedLayer):
        return 0.0
    count, rows, cols = weight.slices.shape
    N, M = max(rows, cols), min(rows, cols)
    return 1e-3 + count * (1e-4 + 4e-8 * N * M + 3e-11 * N * M**2 + 1.8e-10 * M**3)


def own_share(
    layers: Sequence[Layer], rank: int, ranks: int, *, include_frozen: bool, copies: bool
) -> list[Weight | SkippedLayer]:
    """The weights that are this process's to measure, also those that are spread over several; a collective call.

    A weight that is spread over processes is gathered on all of them, one at a time, and kept by its owner alone.

    Args:
        layers: All layers.
        rank: The number of this process.
        ranks: The number of processes.
        include_frozen: Whether layers without trainable parameters are measured, too.
        copies: Whether to copy the weights, so that later steps of training do not change them.

    Returns:
        This process's weights, and the reasons why others of its layers are skipped.
    """
    found = list(read(layers, include_frozen=include_frozen, outlines=True))
    owned = owners([work(one) for one in found], ranks)
    share: list[Weight | SkippedLayer] = []
    for layer, one, owner in zip(layers, found, owned, strict=True):
        weight, is_copy = one, False
        if layer.is_sharded and isinstance(one, Weight):
            try:
                weight, is_copy = replace(one, slices=layer.read(whole=True)), True
            except Exception as error:  # the same on all processes
                weight = skip(one.name, error)
        if owner == rank:
            share.append(on_host(weight, copy=copies and not is_copy))
    return share


def joined(parts: Sequence[WeightReport], order: Sequence[str]) -> WeightReport:
    """Join the reports of several processes, each on its share of the layers.

    Args:
        parts: The reports.
        order: The names of all layers.
    """
    reports = {layer.name: layer for part in parts for layer in part.layers}
    told = [one for part in reversed(parts) for one in part.skipped if one.name not in reports]
    skips = {one.name: one for one in sorted(told, key=lambda one: one.reason == "nonfinite")}  # of any process
    known = set(order)
    names = [*(name for name in skips if name not in known), *order]
    lost = {name: SkippedLayer(name, "failed", "no process has measured it") for name in order if name not in reports}
    skips = lost | skips
    layers = tuple(reports[name] for name in order if name in reports)
    skipped = tuple(skips[name] for name in names if name in skips)
    return WeightReport(layers, skipped, max(part.seconds for part in parts))


@dataclass(frozen=True)
class _Packed:
    """A tensor as bytes, which are sent faster than a tensor."""

    content: NDArray[np.uint8]
    dtype: torch.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> _Packed:
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return cls(content, tensor.dtype, tuple(tensor.shape))

    def tensor(self) -> Tensor:
        return torch.from_numpy(self.content).view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class _Parcel:
    """A snapshot that is sent to another process, without what is there already."""

    key: str  # of the run
    snapshot: Snapshot  # without tensors
    weights: list[_Packed | None]
    initial: dict[str, _Packed]  # those that were not sent before
    previous: dict[str, _Packed]
    attention: dict[str, tuple[_Packed, int, bool]]


@dataclass
class _Kept:
    """What the other process keeps of a run from one measurement to the next."""

    request: Request  # its permutations are cached
    unchanged: Unchanged = field(default_factory=Unchanged)
    initial: dict[str, Tensor] = field(default_factory=dict)


_KEPT: dict[str, _Kept] = {}
"""In the other process: what it keeps, by run."""


def found(parcel: _Parcel) -> tuple[WeightReport, float]:
    """Measure what was sent, in the other process; return the report and the seconds that it took."""
    began = time.perf_counter()
    request = parcel.snapshot.request
    kept = _KEPT.setdefault(parcel.key, _Kept(request))
    kept.initial |= {name: packed.tensor() for name, packed in parcel.initial.items()}
    weights = [
        replace(weight, slices=packed.tensor()) if isinstance(weight, Weight) and packed is not None else weight
        for weight, packed in zip(parcel.snapshot.weights, parcel.weights, strict=True)
    ]
    known = None if request.initial is None else kept.initial
    previous = None if request.previous is None else {n: packed.tensor() for n, packed in parcel.previous.items()}
    heads = {n: Heads(key.tensor(), count, is_turned) for n, (key, count, is_turned) in parcel.attention.items()}
    attention = None if request.attention is None else heads
    request = replace(request, shuffler=kept.request.shuffler, initial=known, previous=previous, attention=attention)
    snapshot = replace(parcel.snapshot, weights=weights, request=request, unchanged=kept.unchanged)
    return snapshot.measure(), time.perf_counter() - began


class Messenger:
    """The sender of a run's snapshots to a process beside training, which are sent with what it does not have yet."""

    def __init__(self) -> None:
        self._key = secrets.token_hex(8)
        self._known: set[str] = set()  # layers whose initial weights the process has
        self._worker: weakref.ref[Worker] | None = None

    def ask(self, worker: Worker, snapshot: Snapshot) -> Future[tuple[WeightReport, float]]:
        """Ask the process for the report of a snapshot."""
        if self._worker is None or self._worker() is not worker:
            self._worker, self._known = weakref.ref(worker), set()
        initial, previous = snapshot.request.initial, snapshot.request.previous
        new = {name: _Packed.of(slices) for name, slices in (initial or {}).items() if name not in self._known}
        own = list(snapshot.weights)
        weights = [_Packed.of(one.slices) if isinstance(one, Weight) else None for one in own]
        light = [replace(one, slices=torch.empty(0)) if isinstance(one, Weight) else one for one in own]
        earlier = {name: _Packed.of(slices) for name, slices in (previous or {}).items()}
        empty: list[dict[str, Tensor] | None] = [None if one is None else {} for one in (initial, previous)]
        heads = snapshot.request.attention
        keys = {n: (_Packed.of(one.key), one.num_heads, one.is_transposed) for n, one in (heads or {}).items()}
        none = None if heads is None else dict[str, Heads]()
        request = replace(snapshot.request, initial=empty[0], previous=empty[1], attention=none)
        parcel = _Parcel(self._key, replace(snapshot, weights=light, request=request), weights, new, earlier, keys)
        future = worker.submit(found, parcel)
        self._known |= new.keys()
        return future

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the process."""
        return {"_key": secrets.token_hex(8), "_known": set(), "_worker": None}
