"""The page of the documents' claims: each script has its part, and the quick ones still find what the page says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "benchmarks" / "reproductions"
NO_CLAIM = {"claims", "nets", "reproductions_page"}
QUICK = ("calibration", "alpha_and_norm", "universality")


def test_each_script_has_its_picture_and_its_part_of_the_page() -> None:
    page = (ROOT / "docs" / "reproductions.md").read_text()
    for script in SCRIPTS.glob("*.py"):
        if script.stem not in NO_CLAIM:
            assert f"(images/reproductions/{script.stem}.png)" in page
            assert (ROOT / "docs" / "images" / "reproductions" / f"{script.stem}.png").exists()


def test_the_quick_ones_find_what_the_page_says(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "reproductions_page.py"), *QUICK]
    options = ["--folder", str(tmp_path / "results"), "--page", str(tmp_path / "page.md")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs" / "reproductions.md").read_text()
    for name in QUICK:
        for claim in json.loads((tmp_path / "results" / f"{name}.json").read_text()):
            [row] = [line for line in page.splitlines() if line.startswith(f"| {claim['claim']} ")]
            assert row.rstrip("| ").endswith(claim["verdict"])
        assert (tmp_path / "images" / "reproductions" / f"{name}.png").stat().st_size > 1000
