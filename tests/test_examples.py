"""The examples run, and say what the README says they do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]


def test_the_demo_shows_a_healthy_run_and_one_that_collapses_and_is_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error::RuntimeWarning", "examples/digits.py", "--epochs", "10", "--logs"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    healthy, _, collapsing = done.stdout.partition("over-regularized")
    assert "No layer shows a collapsed rank or a trap." in healthy
    assert "Stopped early. `SpectralEarlyStopping`: `rank_collapse` fired at" in collapsing
    assert "FLAGGED: rank_collapse" in collapsing
    assert "http://localhost:6006" in done.stdout.splitlines()[-4]
    assert "The loss's Hessian: sharpness" in healthy
    assert "below its edge of stability" in healthy
    assert "Gradients at the last step: encoder" in healthy
    assert "Learning coefficient of 256 digits" in healthy
    for run in ("healthy", "over-regularized"):
        events = EventAccumulator(str(next((tmp_path / run).glob("version_*")))).Reload()
        tags = set(events.Tags()["scalars"])
        for layer in ("encoder", "middle", "head"):
            for metric in ("alpha", "alpha_hill", "rand_distance", "sv_min", "distance_from_init", "stable_rank"):
                assert f"ww.{metric}/{layer}" in tags
            for trigger in ("nonfinite", "rank_collapse", "correlation_trap"):
                assert f"flags.{trigger}/{layer}" in tags
            assert f"ww.esd/{layer}" in events.Tags()["histograms"]
        assert {"ww/report/text_summary", "curvature/report/text_summary"} <= set(events.Tags()["tensors"])
        assert "curvature/spectrum" in events.Tags()["images"]
        assert {f"curvature/{name}" for name in ("sharpness", "trace", "lr_sharpness", "negative_mass")} <= tags
    assert events.Scalars("flags/rank_collapse")[-1].value == 1


def run(*command: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", *command], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_full_batch_training_is_seen_on_its_way_to_the_edge_of_stability() -> None:
    lines = run("examples/edge_of_stability.py", "--steps", "12").splitlines()
    assert [line.split()[0] for line in lines] == ["sgd"] * 3 + ["adam"] * 3
    for line in lines:
        ratios = [float(ratio) for ratio in re.findall(r"\d+\.\d+(?= →| +mean)", line)]
        assert len(ratios) == 5
        assert all(ratio > 0 for ratio in ratios)


def test_outliers_are_counted_by_class() -> None:
    printed = run("examples/class_outliers.py", "--classes", "6")
    counts = [int(count) for count in re.findall(r"\d+(?=[,]| outliers)", printed)]
    assert counts == [5] * 5  # one less than classes, as Papyan (2018) derives


def test_the_learning_coefficient_tells_degenerate_minima_apart_where_the_hessian_is_zero(tmp_path: Path) -> None:
    printed = run("examples/degenerate_minimum.py", "--picture", str(tmp_path / "picture.png")).splitlines()
    for line, power in zip(printed, (2, 4, 6), strict=True):
        sharpness, value = (float(number) for number in re.findall(r"(?:sharpness|coefficient) (-?[\d.e-]+)", line))
        assert sharpness == (2 if power == 2 else 0)
        assert abs(value - 1 / power) < 0.12 / power
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_a_newton_step_by_gpytorch_lowers_the_loss_more_than_a_line_search() -> None:
    first, second = run("examples/newton_step.py").splitlines()
    loss, plain = (float(number) for number in re.findall(r"\d+\.\d{4}", first))
    newton = float(re.findall(r"\d+\.\d{4}", second)[-1])
    residual = float(re.findall(r"residual of ([\d.e-]+):", second)[0])
    assert newton < plain < loss
    assert residual < 1e-3
