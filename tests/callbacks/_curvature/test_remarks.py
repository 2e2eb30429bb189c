"""What is unusual is said, and nothing of what is usual."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from lightning_ww.callbacks._curvature.remarks import remarks


def said(module: nn.Module | None = None, unfit: tuple[str, ...] = (), **differences: Any) -> dict[str, str]:
    usual: dict[str, Any] = {"num_samples": 8, "left_out": (), "density": SimpleNamespace(dim=10)}
    limited, known = differences.pop("is_limited", False), differences.pop("known", None)
    reading: Any = SimpleNamespace(**(usual | differences))
    return dict(remarks(reading, module or nn.Linear(2, 2), unfit, limited, 7, known))


def test_the_usual_is_not_remarked_on() -> None:
    assert said() == said(known=10) == {}


def test_each_remark_names_what_it_is_about() -> None:
    assert "1 could not be measured. Of the first: it is empty" in said(unfit=("it is empty",))["unfit batch"]
    assert "`batch_size_fn=`" in said(num_samples=None)["batch size"]
    names = said(left_out=("a", "_orig_mod.b", "c", "d", "e"))["left out"]
    assert names == "leaves out `a`, `b`, `c` and 2 more: the loss does not depend on them."
    assert "`loss_fn=`" in said(is_limited=True)["limited"]
    scaled = nn.Sequential(nn.Embedding(3, 2, scale_grad_by_freq=True))
    assert "`0` scales its gradients" in said(scaled)["scale_grad_by_freq"]
    assert said(known=4)["num_parameters 10"] == "measures 10 parameters from step 7 on, after 4."
