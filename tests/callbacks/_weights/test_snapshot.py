"""A snapshot that is sent to another process is measured there as here, and what is there is not sent again."""

from __future__ import annotations

import pickle
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.reports import plain
from torch import nn

from lightning_ww.callbacks._weights.snapshot import Messenger, Snapshot, joined, work
from lightning_ww.weights.analysis import LEVERS, read
from lightning_ww.weights.ingredients import Request
from lightning_ww.weights.initial import snapshot as slices_of
from lightning_ww.weights.layers import find_layers
from lightning_ww.weights.report import WeightReport
from lightning_ww.weights.shuffle import Shuffler
from lightning_ww.weights.slices import SkippedLayer
from lightning_ww.weights.unchanged import Unchanged


class Sent:
    """In place of a process: answers here, after what was sent has been through bytes."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        message = pickle.dumps((function, arguments), protocol=pickle.HIGHEST_PROTOCOL)
        self.sizes.append(len(message))
        function, arguments = pickle.loads(message)
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


def taken(model: nn.Module, initial: Any = None, shuffler: Shuffler | None = None) -> Snapshot:
    matrices, skipped = find_layers(model)
    request = Request(shuffler or Shuffler(3), initial=initial, mp_fit=True, floors=None)
    weights = tuple(read(matrices, include_frozen=True, copies=True))
    return Snapshot(weights, skipped, request, LEVERS, Unchanged())


def numbers(report: WeightReport) -> Any:
    return [plain(layer) for layer in report.layers]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_report_is_the_same_to_the_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 20), nn.Conv1d(8, 9, 3), nn.Linear(2, 2)).to(dtype)
    initial = slices_of(find_layers(model)[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape).to(dtype))
    messenger, process = Messenger(), Sent()
    report, seconds = messenger.ask(process, taken(model, initial)).result()  # type: ignore[arg-type]
    here = taken(model, initial).measure()
    assert len(here.layers) == 2
    assert numbers(report) == numbers(here)
    assert [(skip.name, skip.reason) for skip in report.skipped] == [(skip.name, skip.reason) for skip in here.skipped]
    assert seconds > 0


def test_initial_weights_are_sent_once_to_each_process_and_permutations_never() -> None:
    model = nn.Sequential(nn.Linear(100, 100))
    initial, shuffler = slices_of(find_layers(model)[0]), Shuffler(3)
    taken(model, initial, shuffler).measure()  # permutations are drawn
    messenger, first, second = Messenger(), Sent(), Sent()
    for process in (first, first, second):
        snapshot = taken(model, initial, shuffler)
        report, _ = messenger.ask(process, snapshot).result()  # type: ignore[arg-type]
        assert report.layers[0].distance_from_init == 0.0
    bytes_of_one = 100 * 100 * 4
    assert bytes_of_one < first.sizes[1] < bytes_of_one + 10_000
    assert first.sizes[0] > first.sizes[1] + bytes_of_one
    assert second.sizes[0] > first.sizes[1] + bytes_of_one


def test_shares_of_several_processes_are_joined_in_the_models_order() -> None:
    model = nn.Sequential(nn.Linear(20, 10), nn.Linear(30, 9), nn.Linear(3, 2), nn.Linear(10, 12))
    whole = taken(model)
    weights = list(whole.weights)
    order = [one.name for one in weights]
    parts = [replace(whole, weights=[weights[i] for i in some]).measure() for some in ([3, 2], [0, 2], [1])]
    report = joined(parts, order)
    assert numbers(report) == numbers(whole.measure())
    assert [skip.name for skip in report.skipped] == ["2"]
    missing = joined(parts[:2], order)
    assert [(skip.name, skip.reason) for skip in missing.skipped] == [("1", "failed"), ("2", "too_small")]


def test_work_grows_with_what_a_layer_takes() -> None:
    sizes = [work(one) for one in taken(nn.Sequential(*(nn.Linear(M, N) for M, N in SIZES))).weights]
    assert sizes == sorted(sizes)
    assert work(SkippedLayer("a", "nonfinite", "")) == 0


SIZES = [(9, 9), (64, 64), (64, 256), (256, 256), (256, 1024), (512, 512)]


def test_numbers_that_one_process_alone_finds_not_finite_are_not_finite_for_all() -> None:
    reasons = [["one_axis"], ["nonfinite"], ["one_axis"]]
    parts = [WeightReport((), tuple(SkippedLayer("norm", reason, "") for reason in some), 0.0) for some in reasons]  # type: ignore[arg-type]
    assert [skip.reason for skip in joined(parts, ["norm"]).skipped] == ["nonfinite"]
