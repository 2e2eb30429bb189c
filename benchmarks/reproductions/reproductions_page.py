"""Write `docs/reproductions.md`: run every script of this folder, or those that are named."""

from __future__ import annotations

import argparse
import importlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import claims
import torch
from claims import SEEDS
from tabulate import tabulate

DOCS = Path(__file__).parents[2] / "docs"
SCRIPTS = (
    *("l2_sweep", "well_and_badly_trained", "batch_size", "calibration", "universality", "alpha_and_norm"),
    *("digits_nets", "entropy", "deep_curvature", "grokking"),
)
HEAD = f"""# The documents' claims, tried

Written by `make reproductions`: a short script in `benchmarks/reproductions/` and a picture for each, {SEEDS} seeds a setting unless the
line says more. Expected: what the documents say or imply. The data are scikit-learn's digits or generated. Not tried: claims on
networks that have to be downloaded, and broad basins against the learning coefficient, which is not part of this package.
"""


def main() -> None:
    """Run scripts, keep their results, and write the page of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scripts", nargs="*", help="those to run again; default: all")
    parser.add_argument("--folder", type=Path, default=Path("runs/reproductions"), help="where results go")
    parser.add_argument(
        "--page", type=Path, default=DOCS / "reproductions.md", help="the page to write, pictures beside it"
    )
    arguments = parser.parse_args()
    claims.IMAGES = arguments.page.parent / "images" / "reproductions"
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.scripts or SCRIPTS:
        began = time.perf_counter()
        found = importlib.import_module(name).reproduce()
        (arguments.folder / f"{name}.json").write_text(json.dumps([asdict(claim) for claim in found]))
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    parts = [HEAD.strip()]
    for name in SCRIPTS:
        file = arguments.folder / f"{name}.json"
        if not file.exists():
            continue
        rows = [list(claim.values()) for claim in json.loads(file.read_text())]
        title = (importlib.import_module(name).__doc__ or "").strip().removesuffix(".")
        parts.append(
            f"## {title}\n\n"
            + tabulate(rows, ("claim", "expected", "found", "verdict"), "github", disable_numparse=True)
        )
        parts.append(f"![{title}](images/reproductions/{name}.png)")
    arguments.page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
