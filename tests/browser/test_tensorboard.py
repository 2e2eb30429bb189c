"""What a person sees: a real TensorBoard on a small run, opened in a real browser at 1280 × 800."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from callbacks.networks import Classifier, data
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from lightning_ww.callbacks import CurvatureMonitor, WeightSpectrumMonitor

pytestmark = pytest.mark.browser

WAIT = 30_000  # milliseconds: TensorBoard loads its data while one looks


class Collapsing(Classifier):
    """Its hidden layer loses half of its rank in the second epoch."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            with torch.no_grad():
                self.hidden.weight[8:] = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.head.parameters(), lr=0.05)

    def on_fit_start(self) -> None:
        self.norm = nn.LayerNorm(4)  # to be skipped


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a TensorBoard on a run of both monitors."""
    folder = tmp_path_factory.mktemp("runs")
    seed_everything(0, verbose=False)
    trainer = Trainer(
        max_epochs=4,
        callbacks=[WeightSpectrumMonitor(), CurvatureMonitor(every_n_epochs=1, num_steps=12)],
        logger=TensorBoardLogger(str(folder), name="", version="small"),
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(Collapsing(), data(), data(shuffle=False))
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0", "--load_fast=false"]
    said = folder / "said.txt"
    with said.open("w") as stderr, subprocess.Popen(command, stderr=stderr) as server:
        for _ in range(120):  # half a second each
            if found := re.search(r"at (http://\S+?)/? \(Press", said.read_text()):
                break
            time.sleep(0.5)
        else:
            server.terminate()
            pytest.fail(f"TensorBoard did not start: {said.read_text()}")
        yield found[1]
        server.terminate()


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
    """Go to a dashboard, and wait for a text in it."""
    page.goto(f"{address}/#{tab}")
    page.get_by_text(first, exact=False).first.wait_for()


def keep(page: Any, name: str) -> None:
    """Write a picture of what is seen, if a folder for it is named."""
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(2000)  # until curves have been drawn
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_overview_is_laid_out_without_being_asked_for(page: Any, address: str) -> None:
    open_tab(page, address, "custom_scalars", "lightning-ww: median and 10–90 % of the layers")
    for title in ("alpha", "rand_distance", "stable_rank", "flagged layers", "sharpness, and its edge 2/lr"):
        page.get_by_text(title, exact=True).first.wait_for(state="attached")
    page.locator("tf-custom-scalar-margin-chart-card svg path, vz-line-chart2 svg path").first.wait_for(
        state="attached"
    )
    keep(page, "overview")


def test_images_show_maps_spectra_and_curvature(page: Any, address: str) -> None:
    open_tab(page, address, "images", "curvature/spectrum")
    keep(page, "images")
    for group in ("curvature.maps", "ww.maps", "ww.spectrum"):
        page.get_by_text(group, exact=True).first.wait_for()
    for query, width in (("ww.maps/alpha", 600), ("ww.spectrum/hidden", 640), ("curvature.maps/spectrum", 600)):
        page.locator("tf-tag-filterer input").first.fill(re.escape(query))
        page.wait_for_timeout(1500)
        picture = page.locator("tf-image-loader img").first
        picture.wait_for()
        assert picture.evaluate("img => img.naturalWidth") == width
        keep(page, query.replace("/", "-"))
    page.locator("tf-tag-filterer input").first.fill("")


def test_text_tells_what_numbers_suggest_what_happened_and_what_was_left_out(page: Any, address: str) -> None:
    open_tab(page, address, "text", "ww/report")
    page.get_by_text("Events, the latest first").first.wait_for()
    for part in ("suggests", "rank_deficit", "rank_collapse", "Not analysed", "one_axis", "has hardly moved"):
        page.get_by_text(part).first.wait_for(state="attached")
    page.get_by_text("Events, the latest first").first.scroll_into_view_if_needed()
    keep(page, "text")


def test_histograms_hold_the_layers_spectra(page: Any, address: str) -> None:
    open_tab(page, address, "histograms", "ww.esd")
    page.get_by_text("ww.esd/hidden").first.wait_for(state="attached")
    keep(page, "histograms")
