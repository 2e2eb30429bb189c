"""Write what weightwatcher 0.7.7 says of the weights of `cases.py` to `golden.json`.

Run it in a process of its own (``make golden``): importing weightwatcher silences every warning of the process and
sets up the root logger.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

import cross_library.cases as cases

GOLDEN = Path(__file__).with_name("golden.json")


def rows() -> dict[str, dict[str, Any]]:
    """Weightwatcher's row of each case, by name."""
    import weightwatcher

    logging.getLogger("weightwatcher").setLevel(logging.ERROR)
    found = {}
    for name in cases.WEIGHTS:
        np.random.seed(cases.SEED)
        watcher = weightwatcher.WeightWatcher(model=cases.module_for_weightwatcher(name))
        details = watcher.analyze(randomize=True, mp_fit=True, detX=True, ERG=True)
        row = details.iloc[0].to_dict()
        found[name] = {key: _plain(value) for key, value in sorted(row.items()) if _plain(value) is not None}
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, bool | int | float | str) else None


if __name__ == "__main__":
    text = json.dumps(rows(), indent=1)
    if "--print" in sys.argv:
        sys.stdout.write(f"\nGOLDEN{text}")
    else:
        GOLDEN.write_text(text + "\n")
