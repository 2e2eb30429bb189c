"""TensorBoard's overview: which curves stand together, in whatever run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from helpers.drawn import fit, layouts
from helpers.networks import Classifier
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ww.callbacks import CurvatureMonitor, WeightSpectrumMonitor
from lightning_ww.callbacks._monitor.layout import Category, flagged_layers, overview
from lightning_ww.callbacks._monitor.view import Chart


def weights(prefix: str = "") -> Category:
    bands = [
        Chart(name, (f"{name}_q50", f"{name}_q10", f"{name}_q90"), is_band=True) for name in ("alpha", "stable_rank")
    ]
    return Category("ww", prefix, "the weights", [flagged_layers(), *bands])


def curvature(prefix: str = "") -> Category:
    return Category("curvature", prefix, "the loss's curvature", [Chart("sharpness", ("sharpness", "stability_edge"))])


def test_the_overview_follows_the_monitors_keys_and_nothing_else() -> None:
    of_weights, of_curvature, _ = overview([weights(), curvature()]).values()
    assert list(of_weights) == ["flagged layers", "stable_rank", "alpha"]  # TensorBoard shows the last band first
    assert of_weights["alpha"] == ["Margin", ["ww/alpha_q50", "ww/alpha_q10", "ww/alpha_q90"]]
    kind, patterns = of_curvature["sharpness"]
    assert kind == "Multiline"
    keys = ("curvature/sharpness", "curvature/sharpness_residual", "curvature/stability_edge")
    assert [[key for key in keys if re.match(pattern, key)] for pattern in patterns] == [[keys[0]], [keys[2]]]  # type: ignore[attr-defined]
    only = overview([curvature("a+/")])
    assert list(only) == ["lightning-ww a+/: the loss's curvature", "lightning-ww a+/: what measuring costs"]
    pattern = only["lightning-ww a+/: what measuring costs"]["seconds of a measurement"][1][1]  # type: ignore[index]
    assert re.match(pattern, "a+/curvature/seconds")
    assert not re.match(pattern, "curvature/seconds")


def test_runs_with_other_monitors_have_the_same_charts_so_that_none_is_shown_twice() -> None:
    seen: dict[tuple[str, str], object] = {}
    for monitors in ([weights()], [curvature()], [weights(), curvature()], [curvature(), weights()]):
        for category, charts in overview(monitors).items():
            for title, chart in charts.items():
                assert seen.setdefault((category, title), chart) == chart


def test_the_cost_of_a_monitor_of_ones_own_has_its_own_chart() -> None:
    *_, costs = overview([weights(), Category("norms", "", "the norms", [])]).values()
    *shared, share, seconds = costs
    assert shared == ["share of training time", "seconds of a measurement"]
    assert (share, seconds) == ("share of training time: norms", "seconds of a measurement: norms")
    assert costs[share] == ["Multiline", ["norms/overhead$"]]


def test_a_run_without_shuffles_has_no_empty_band(tmp_path: Path) -> None:
    trainer = fit(WeightSpectrumMonitor(shuffle="off"), logger=TensorBoardLogger(str(tmp_path)), epochs=1)
    (ours,) = layouts(f"{trainer.log_dir}/lightning-ww")
    assert [chart.title for chart in ours.category[0].chart] == [
        "flagged layers",
        "alpha_weighted and log_norm",
        "stable_rank",
        "alpha",
    ]


def test_one_overview_of_both_monitors_beside_the_users_own_layout(tmp_path: Path) -> None:
    class Own(Classifier):
        def on_fit_start(self) -> None:
            logger: Any = self.logger
            logger.experiment.add_custom_scalars({"mine": {"loss": ["Multiline", ["train_loss"]]}})

    logger = TensorBoardLogger(str(tmp_path))
    fit(CurvatureMonitor(every_n_epochs=1, num_steps=3), WeightSpectrumMonitor(), logger=logger, epochs=1, model=Own())
    (own,) = layouts(logger.log_dir)
    assert [category.title for category in own.category] == ["mine"]
    (ours,) = layouts(f"{logger.log_dir}/lightning-ww")
    titles = [chart.title for category in ours.category for chart in category.chart]
    assert "sharpness, and its edge 2/lr" in titles
    assert "alpha" in titles
    seen = set(EventAccumulator(logger.log_dir).Reload().Tags()["scalars"])
    for category in ours.category:
        for chart in category.chart:
            for series in chart.margin.series:
                assert {series.value, series.lower, series.upper} <= seen
            for pattern in chart.multiline.tag:
                assert any(re.match(pattern, tag) for tag in seen), pattern
