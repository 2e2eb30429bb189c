"""`to_pandas(like="weightwatcher")` against weightwatcher 0.7.7, by golden values that `make golden` writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cross_library.cases as cases
import pytest
import torch
from torch import nn

from lightning_ww import analyze
from lightning_ww.weights.analysis import measure, read
from lightning_ww.weights.elements import Elements
from lightning_ww.weights.ingredients import Request
from lightning_ww.weights.layers import find_layers
from lightning_ww.weights.shuffle import Shuffler

HERE = Path(__file__).parents[1] / "cross_library"
GOLDEN: dict[str, dict[str, Any]] = json.loads((HERE / "golden.json").read_text())

EXACT = [
    *("N", "M", "rf", "num_evals", "num_pl_spikes", "detX_num", "num_ERG_spikes", "ERG_gap", "num_spikes"),
    *("status", "warning"),
]
CLOSE = [
    *("alpha", "D", "xmin", "xmax", "sigma", "alpha_weighted", "log_alpha_norm", "Q", "lambda_max", "sv_max", "norm"),
    *("log_norm", "spectral_norm", "log_spectral_norm", "stable_rank", "rand_distance", "ww_softrank"),
    *("ww_maxdist", "detX_val", "detX_val_unrescaled"),
]
RANKS = ["matrix_rank", "rank_loss", "weak_rank_loss"]
BULK = ["sigma_mp", "mp_softrank", "W_scale", "bulk_max", "bulk_min"]
SWAPPED = {"conv2d_2x2", "conv3d"}  # weightwatcher swaps N and M once per kernel position
LOW_RANK = {"linear_low_rank", "linear_rank_5"}  # an eigenvalue that is float64 rounding
DEPTHWISE = "conv2d_depthwise"  # weightwatcher has a vector for each kernel position, we have one matrix of all


class TheirShuffler(Shuffler):
    def shuffle(self, slices: Elements, *, draw: int = 0) -> Elements:
        return cases.weightwatcher_shuffle(slices.astype(float))


def our_row(name: str) -> dict[str, Any]:
    found, _ = find_layers(cases.module(name))
    report = measure(read(found, include_frozen=True), [], Request(TheirShuffler(), "exact", mp_fit=True))
    return {str(k): v for k, v in report.to_pandas(like="weightwatcher").iloc[0].to_dict().items()}


@pytest.mark.parametrize("name", [name for name in cases.WEIGHTS if name != DEPTHWISE])
def test_columns_equal_weightwatchers(name: str) -> None:
    ours, theirs = our_row(name), GOLDEN[name]
    left_out = {"N", "M", "Q", *BULK, "num_spikes"} if name in SWAPPED else set()
    left_out |= {"detX_val", "detX_val_unrescaled"} if name in LOW_RANK else set()
    left_out |= {"sigma"} if name == "linear_rank_5" else set()  # theirs is computed before the fit, from alpha = -1
    digits = 1e-6 if name == "linear_orthogonal" else 1e-9  # differences of logs of eigenvalues that are all but equal
    for column in EXACT:
        assert column in left_out or ours[column] == theirs[column], column
    for column in CLOSE:
        if column not in left_out:
            assert ours[column] == pytest.approx(theirs[column], rel=digits), column
    if theirs["sigma_mp"] > 0:
        for column in BULK:
            assert column in left_out or ours[column] == pytest.approx(theirs[column], rel=1e-6), column
    found, _ = find_layers(cases.module(name))
    measured = measure(read(found, include_frozen=True), [], Request(Shuffler(), "off")).layers[0].spectrum
    assert measured is not None
    if measured.eigenvalues[0] > 1e-12 * measured.eigenvalues[-1]:  # below, theirs counts float64's rounding
        for column in RANKS:
            assert ours[column] == theirs[column], column
        assert ours["entropy"] == pytest.approx(theirs["entropy"], rel=1e-9)
        assert ours["sv_min"] == pytest.approx(theirs["sv_min"], rel=1e-6)


def test_an_exactly_deficient_layer_has_the_rank_that_weightwatcher_gives() -> None:
    layer = nn.Linear(40, 60, bias=False)
    layer.weight.data = torch.randn(60, 20, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, 1)
    row = analyze(nn.Sequential(layer)).to_pandas(like="weightwatcher").iloc[0]
    assert (row.matrix_rank, row.rank_loss) == (20, 20)  # weightwatcher 0.7.7 itself
    assert row.entropy == pytest.approx(0.9386, abs=5e-5)


def test_num_traps_are_ours() -> None:
    layer = nn.Linear(64, 64, bias=False)
    layer.weight.data[3, 4] = 5.0
    report = analyze(nn.Sequential(layer))
    assert report.to_pandas(like="weightwatcher").iloc[0].num_traps == report["0"].correlation_traps == 1


def test_a_layer_without_a_bulk_has_a_row() -> None:
    layer = nn.Linear(30, 30, bias=False)
    layer.weight.data = torch.zeros(30, 30)
    frame = analyze(nn.ModuleDict({"zero": layer, "healthy": nn.Linear(30, 30)}), mp_fit=True).to_pandas(
        like="weightwatcher"
    )
    assert list(frame.longname) == ["zero", "healthy"]


@pytest.mark.peers
def test_golden_values_are_what_weightwatcher_says_today() -> None:
    command = [sys.executable, "-m", "cross_library.make_golden", "--print"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE.parent).stdout
    for name, row in json.loads(printed.partition("\nGOLDEN")[2]).items():
        for column, value in row.items():
            expected = pytest.approx(value, rel=1e-9, nan_ok=True) if isinstance(value, float) else value
            assert GOLDEN[name][column] == expected, (name, column)


def test_equal_eigenvalues_have_the_numbers_that_weightwatcher_gives() -> None:
    model = nn.Sequential(nn.Linear(24, 13, bias=False))
    model[0].weight.data = torch.eye(13, 24)
    row = analyze(model).to_pandas(like="weightwatcher").iloc[0]
    assert (row["alpha"], row["D"], row["xmin"], row["num_pl_spikes"], row["status"]) == (0, 1, 1, 13, "success")
    assert row["sigma"] == pytest.approx(-(13**-0.5))  # weightwatcher 0.7.7: -0.27735


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170])
def test_weights_of_extreme_scale_have_a_frame(scale: float) -> None:
    layer = nn.Linear(40, 30, dtype=torch.float64)
    layer.weight.data.mul_(scale / float(layer.weight.detach().abs().max()))
    assert analyze(nn.Sequential(layer)).to_pandas(like="weightwatcher")["N"][0] == 40
