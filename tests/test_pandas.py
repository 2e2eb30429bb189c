"""Without pandas, an error says what to install."""

from __future__ import annotations

import re
import sys

import pytest
from helpers.reports import layer, report

from lightning_ww import History
from lightning_ww._pandas import data_frame


def test_the_call_and_what_to_install_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for call, frame in (
        ("WeightReport.to_pandas", report(layer("a")).to_pandas),
        ("History.to_pandas", History().to_pandas),
    ):
        message = f"`{call}()` needs pandas: `pip install lightning-ww[pandas]` or `pip install pandas`."
        with pytest.raises(ModuleNotFoundError, match=f"^{re.escape(message)}$"):
            frame()


def test_with_pandas_it_is_its_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    assert data_frame("f") is pandas.DataFrame
