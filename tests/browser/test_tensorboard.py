"""What a person sees of the demo: a real TensorBoard on it, opened in a real browser at 1280 × 800."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.networks import Classifier, data, quiet_trainer
from numpy.typing import NDArray
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_ww.callbacks import WeightSpectrumMonitor

pytestmark = pytest.mark.browser

DEMO = Path(__file__).parents[2] / "examples" / "digits.py"
HEALTHY, COLLAPSED = "healthy/version_0", "over-regularized/version_0"

WAIT = 30_000  # milliseconds: TensorBoard loads its data while one looks


class Normed(Classifier):
    """With a layer that has no matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's two runs, and one with a layer that is skipped."""
    folder = tmp_path_factory.mktemp("runs")
    subprocess.run([sys.executable, str(DEMO), "--logs", str(folder)], check=True, capture_output=True, timeout=300)
    logger = TensorBoardLogger(str(folder), name="", version="normed")
    quiet_trainer(max_epochs=1, callbacks=[WeightSpectrumMonitor()], logger=logger).fit(
        Normed(), data(), data(shuffle=False)
    )
    return folder


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    """Of a TensorBoard that shows them."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs), "--port", "0"]
    said = runs / "said.txt"
    with said.open("w") as stderr, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr) as server:
        try:
            for _ in range(120):  # half a second each
                if found := re.search(r"at (http://\S+?)/? \(Press", said.read_text()):
                    break
                time.sleep(0.5)
            else:
                pytest.fail(f"TensorBoard did not start: {said.read_text()}")
            yield found[1]
        finally:
            server.kill()  # it may outlive a polite request


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "there is no Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1280, "height": 800})
        opened.set_default_timeout(WAIT)
        opened.goto(address)
        yield opened
        browser.close()


def open_tab(page: Any, address: str, tab: str, first: str) -> None:
    """Go to a dashboard as if for the first time, and wait for a text in it."""
    page.goto("about:blank")
    page.goto(f"{address}/#{tab}")
    page.get_by_text(first, exact=False).first.wait_for()


def keep(page: Any, name: str) -> None:
    """Write a picture of what is seen, if a folder for it is named."""
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(2000)  # until curves have been drawn
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def logged(runs: Path, run: str, kind: str, tag: str) -> list[Any]:
    """What was written of a tag."""
    events = EventAccumulator(str(runs / run), size_guidance={kind: 0}).Reload()
    return list(getattr(events, kind.capitalize())(tag))


def points(path: str) -> NDArray[np.float64]:
    """Of a drawn line, in pixels."""
    return np.array([[float(x) for x in pair.split(",")] for pair in re.findall(r"[-\d.e]+,[-\d.e]+", path)])


def drawn(card: Any, kind: str) -> list[NDArray[np.float64]]:
    """Lines or areas of a chart, once its curves are there."""
    found = card.locator(f"path.{kind}")
    for _ in range(60):
        paths = [points(path or "") for path in found.evaluate_all("all => all.map(one => one.getAttribute('d'))")]
        if any(len(path) > 5 for path in paths):
            return paths
        card.page.wait_for_timeout(500)
    raise AssertionError(f"no {kind} was drawn")


def misfit(path: NDArray[np.float64], steps: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, Any]:
    """How many pixels a line is off these numbers, the axes being whatever fits; the axes.

    Numbers at either end may be beyond the chart, which leaves outliers out.
    """
    best: tuple[float, Any] = np.inf, None
    count = len(path)
    for start in range(len(values) - count + 1 if count >= 4 else 0):
        off, axes = 0.0, []
        for pixels, numbers in zip(path.T, (steps[start : start + count], values[start : start + count]), strict=True):
            axis = np.polyfit(numbers, pixels, 1) if np.ptp(numbers) else np.array([0.0, pixels[0]])
            axes.append(axis)
            off = max(off, float(np.abs(np.polyval(axis, numbers) - pixels).max()))
        if off < best[0]:
            best = off, axes
    return best


@pytest.mark.parametrize("metric", ["alpha", "rand_distance", "stable_rank"])
def test_a_band_has_the_median_and_the_quantiles_that_were_logged(
    page: Any, address: str, runs: Path, metric: str
) -> None:
    open_tab(page, address, "custom_scalars", "lightning-ww: the weights")
    card = page.locator("tf-custom-scalar-margin-chart-card").filter(has=page.get_by_text(metric, exact=True))
    lower, median, upper = (
        np.array([event.value for event in logged(runs, HEALTHY, "scalars", f"ww/{metric}_{q}")])
        for q in ("q10", "q50", "q90")
    )
    steps = np.array([event.step for event in logged(runs, HEALTHY, "scalars", f"ww/{metric}_q50")], dtype=float)
    off, axes = min((misfit(path, steps, median) for path in drawn(card, "line")), key=lambda found: found[0])
    assert off < 0.1
    vertical = axes[1]
    count = max(len(area) for area in drawn(card, "area")) // 2  # there along the one side, back along the other
    outline = next(area for area in drawn(card, "area") if len(area) == 2 * count)
    sides = sorted([outline[:count, 1], outline[count:, 1][::-1]], key=lambda side: float(side.sum()))
    for side, values in zip(sides, (upper, lower), strict=True):  # pixels are counted from above
        np.testing.assert_allclose(side, np.polyval(vertical, values[-count:]), atol=0.1)
    keep(page, "overview")


def test_the_overviews_lines_have_what_was_logged_of_each_run(page: Any, address: str, runs: Path) -> None:
    open_tab(page, address, "custom_scalars", "lightning-ww: the weights")
    expected = {
        "flagged layers": ["flags/nonfinite", "flags/rank_collapse", "flags/correlation_trap"],
        "alpha_weighted and log_norm": ["ww/alpha_weighted", "ww/log_norm"],
        "sharpness, and its edge 2/lr": ["curvature/sharpness", "curvature/stability_edge"],
        "share of training time": ["ww/overhead", "curvature/overhead"],
        "seconds of a measurement": ["ww/seconds", "curvature/seconds"],
    }
    for title, tags in expected.items():
        card = page.locator("tf-custom-scalar-multi-line-chart-card").filter(has=page.get_by_text(title, exact=True))
        card.scroll_into_view_if_needed()  # fails if there are two
        for run, tag in product((HEALTHY, COLLAPSED), tags):
            events = logged(runs, run, "scalars", tag)
            if len(events) < 4:
                continue
            steps, values = (
                np.array([getattr(one, name) for one in events], dtype=float) for name in ("step", "value")
            )
            lines = drawn(card, "line")
            assert min(misfit(path, steps, values)[0] for path in lines) < 0.1, (run, tag, values, lines)
        card.get_by_text("Matches").first.click()
        for name in (f"{tag} ({run})" for tag in tags for run in (HEALTHY, COLLAPSED)):
            card.get_by_text(name).first.wait_for(state="attached")
        keep(page, f"overview-{title.split()[0]}")


@pytest.mark.parametrize(
    "tag",
    ["ww.maps/alpha", "ww.maps/sv_min", "ww.spectrum/middle", "curvature/spectrum", "curvature.maps/spectrum"],
)
def test_each_picture_is_the_latest_that_was_drawn(page: Any, address: str, runs: Path, tag: str) -> None:
    open_tab(page, address, "images", "ww.maps")
    page.locator("tf-tag-filterer input").first.fill(f"^{re.escape(tag)}$")
    page.wait_for_timeout(1500)
    shown: dict[str, Any] = {}
    for picture in page.locator("tf-image-loader img").all():
        key = re.findall(r"blob_key=([\w-]+)", picture.get_attribute("src"))[0]
        *_, run, of, step, _ = json.loads(base64.urlsafe_b64decode(key + "=" * (-len(key) % 4)))
        if of == tag:
            shown[run] = (picture, step)
    for run in (HEALTHY, COLLAPSED):
        picture, step = shown[run]
        last = logged(runs, run, "images", tag)[-1]
        assert step == last.step
        assert page.request.get(f"{address}/{picture.get_attribute('src')}").body() == last.encoded_image_string
        assert picture.evaluate("img => img.naturalWidth") == last.width
        assert picture.bounding_box()["width"] >= 340  # letters of fourteen pixels in 540 are to be read
    keep(page, tag.replace("/", "-"))


def test_the_report_tells_what_numbers_suggest_what_happened_and_what_was_left_out(page: Any, address: str) -> None:
    open_tab(page, address, "text", "ww/report")
    page.get_by_text("Events, the latest first").first.wait_for()
    event = "After 88 steps (epoch 1): rank_collapse at layer middle: rank_deficit 0.88 (threshold 0.5)"
    page.get_by_text(event).first.wait_for(state="attached")
    for part in ("suggests", "tail as in trained layers", "Not analyzed", "one_axis", "largest eigenvalues"):
        page.get_by_text(part).first.wait_for(state="attached")
    page.get_by_text("Events, the latest first").first.scroll_into_view_if_needed()
    keep(page, "text")


def test_histograms_hold_the_layers_spectra(page: Any, address: str) -> None:
    open_tab(page, address, "histograms", "ww.esd")
    for layer in ("encoder", "middle", "head"):
        page.get_by_text(f"ww.esd/{layer}").first.wait_for(state="attached")
    keep(page, "histograms")
