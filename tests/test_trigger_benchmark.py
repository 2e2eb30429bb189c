"""The scores of the benchmark of triggers, against small cases by hand, and its suites in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from page_b import fifth_rise, label_wave, validation_stop
from scipy.stats import mannwhitneyu
from scoring import alarm, area, failed_at, first_above, first_stop, highest, interval, threshold_of, views, wins
from torch import nn
from when_to_stop import Data, evidence, network_of

ROOT = Path(__file__).parents[1]


def test_a_run_has_failed_where_accuracy_stays_five_points_below_its_best() -> None:
    assert failed_at([0.5, 0.9, 0.84, 0.9, 0.84, 0.85, 0.9], 0.1) == 5
    assert failed_at([0.5, 0.9, 0.84, 0.9, 0.88], 0.1) is None  # one epoch is no failure
    assert failed_at([0.1] * 9, 0.1) == 8  # never left chance
    assert failed_at([0.1] * 8 + [0.9], 0.1) == 8
    fallen = [0.9, 0.8, 0.8, 0.9, 0.9, 0.7, 0.7]
    assert failed_at(fallen, 0.1) == 2
    assert failed_at(fallen, 0.1, since=4) == 6  # falls before the fault are not its own


def test_an_alarm_is_the_third_firing_in_a_row_from_the_fifth_epoch_on() -> None:
    assert alarm([["a"]] * 9, "a") == 5
    assert alarm([[], [], [], [], ["a"], ["a"], [], ["a"], ["a"], ["a"]], "a") == 10
    assert alarm([["a"], ["b"]] * 5, "a", "b") is None  # each has its own count
    assert alarm([[], ["nonfinite"]], "nonfinite") == 2


def test_intervals_are_wilsons() -> None:
    assert list(interval(0, 60)) == pytest.approx([0.0, 0.0602], abs=1e-4)
    assert list(interval(3, 60)) == pytest.approx([0.0171, 0.1370], abs=1e-4)


def test_the_area_is_that_of_the_mann_whitney_test() -> None:
    random = np.random.default_rng(0)
    positive, negative = random.normal(1, 1, 30).tolist(), random.normal(0, 1, 40).tolist()
    expected = mannwhitneyu(positive, negative).statistic / 1200
    assert area(wins(positive, [negative] * 30)) == pytest.approx(expected)
    assert area(wins([float("nan")], [[0.0]])) == 0.0
    assert wins([1.0, 2.0], [[1.0, 0.0], [3.0, 1.0]]).tolist() == [[0.5, 1], [0, 1]]  # a row of scores for each


def test_scores_look_no_further_than_the_failure() -> None:
    scores = np.array([0.0, 3.0, 1.0, 9.0])
    assert highest(scores, 4) == 3.0
    assert highest(scores, None) == 9.0
    assert first_above(scores, 2.0) == 2
    assert first_above(scores, 9.0) is None
    seen = views({"least": [1.0, np.e, 1.0]}, is_log=True)
    assert seen["least, rise since epoch 1"].tolist() == pytest.approx([0, 1, 0])  # of the logarithm
    assert views({"least": [2.0, 5.0, 3.0]})["least, rise since epoch 1"].tolist() == [0, 3, 1]
    assert seen["least, change within 3 epochs"].tolist() == pytest.approx([0, 1, 1])


def test_a_threshold_has_at_most_the_declared_rate_of_false_alarms() -> None:
    healthy = [float(i) for i in range(40)]
    assert sum(value > threshold_of(healthy) for value in healthy) == 2


def test_stopping_rules_stop_where_they_should() -> None:
    assert first_stop([True] * 9, 3) == 5
    assert first_stop([False] * 6 + [True], 1) == 7
    assert fifth_rise([0, 1, 2, 1, 2, 1, 2, 3, 4]) == 8
    assert fifth_rise([1, 1, 1]) is None
    assert validation_stop([5, 4, 3, 4, 4, 4, 4, 4, 1]) == (3, 8)
    assert validation_stop([3, 2, 1]) == (3, 3)
    assert label_wave([9, 9, 9, 5, 1, 1, 1, 6, 9, 9, 9]) == 7  # the mean of 5, 6, 7
    assert label_wave([9, 8, 7, 6]) is None


def test_the_evidence_criterion_is_that_of_gradients_sample_by_sample() -> None:
    data = Data("digits", 50, 0.0, 0)
    network = network_of(data, 0)
    rows = []
    for x, y in zip(data.x, data.y, strict=True):
        loss = nn.functional.cross_entropy(network(x[None]), y[None])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))]))
    gradients = torch.stack(rows)
    ratio = len(rows) * gradients.mean(0).square() / gradients.var(0).clamp_min(1e-20)
    assert evidence(network, data.x, data.y) == pytest.approx(1 - float(ratio.mean()), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["will_it_fail", "when_to_stop", "anti_grokking", "fine_tuning"])
def test_a_suite_runs_in_small(suite: str, tmp_path: Path) -> None:
    command = [sys.executable, f"benchmarks/triggers/{suite}.py", "--small", "--folder", str(tmp_path)]
    for _ in range(2):  # the second time nothing is missing
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for file in tmp_path.rglob("*.jsonl") for line in file.read_text().splitlines()]
    number = {"will_it_fail": 19, "when_to_stop": 3, "anti_grokking": 6 * 9, "fine_tuning": 1}[suite]
    assert len(lines) == number
