"""Write `docs/metrics.md` from the table of metrics (``make docs``)."""

from __future__ import annotations

from pathlib import Path

from lightning_ww.drawing.markdown import markdown
from lightning_ww.weights.metric import Metric
from lightning_ww.weights.metrics import BANDS, KEY_METRICS, TABLE

FILE = Path(__file__).with_name("metrics.md")

HEAD = """# Every number of a layer

Written by `make docs` from the table in `lightning_ww/weights/metrics.py`. λ are the squares of all slices' singular values s,
pooled, n of them; N is the long and M the short side of a slice. `WeightSpectrumMonitor` logs the bold ones by default,
and those that `metrics=` names.

"""

NEEDS = {
    "shuffle": "shuffled spectra (not `shuffle='off'`)",
    "mp_fit": "`analyze(mp_fit=True)`, or its name in `metrics=`",
    "floor": "`analyze(floor=True)`; the monitor measures it once, at its first measurement",
    "initial": "`analyze(initial=…)`; the monitor keeps the initial weights where one of these is in `metrics=`",
    "previous": "`analyze(previous=…)`; the monitor keeps a copy of the last weights where one of these is in `metrics=`",
    "attention": "`analyze(attention=True)`, or its name in `metrics=`",
    "cka": "`analyze(cka=True)`, or its name in `metrics=`",
    "bootstrap": "`analyze(bootstrap=100)`, or its name in `metrics=`",
}


def summed_up(metric: Metric) -> str:
    """What the model's summary has of it."""
    said = {None: "–", "mean": "mean", "least": "least", "largest": "largest"}[metric.summary]
    return f"{said}, 10/50/90 % of the layers" if metric.name in BANDS else said


def page() -> str:
    """The whole page."""
    rows = [
        [
            f"**`{name}`**" if name in KEY_METRICS else f"`{name}`",
            metric.meaning,
            f"{metric.scale.low:g} … {metric.scale.high:g}" + (", in logs" if metric.scale.is_log else ""),
            summed_up(metric),
            "; ".join(NEEDS[need] for need in metric.needs) or "–",
        ]
        for name, metric in TABLE.items()
    ]
    return HEAD + markdown(["metric", "what it is", "colors run from … to", "in the summary", "needs"], rows) + "\n"


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
