"""Random models: nothing crashes, no weight is omitted, and a layer "failed" only where its own code raises."""

from __future__ import annotations

import warnings

import pytest
import torch
from helpers import fuzz
from torch import nn

import lightning_ww
from lightning_ww import diagnose
from lightning_ww._errors import ArgumentError
from lightning_ww._torch import plain_name
from lightning_ww.drawing.canvas import picture
from lightning_ww.weights.layers import find_layers, nothing_to_measure
from lightning_ww.weights.plots.table import report_table


def missing(model: nn.Module, report: lightning_ww.WeightReport) -> list[str]:
    """The modules with a parameter of two or more axes that are neither among the layers nor among those skipped."""
    told = [layer.name for layer in report.layers] + [skip.name for skip in report.skipped]
    lost = []
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter) or parameter.ndim >= 2:
            owner = plain_name(name).split(".parametrizations.")[0].rpartition(".")[0]
            whole = plain_name(name).removesuffix("_orig")
            names = (owner, whole, plain_name(name).split(".parametrizations.")[0])
            if not any(one in names or one.startswith(f"{owner}.") or whole.startswith(one) for one in told):
                lost.append(name)
    return lost


def try_all(seed: int) -> None:
    model = fuzz.model(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if nothing_to_measure(model, *find_layers(model)):
            with pytest.raises(ArgumentError, match="no weight matrix"):
                lightning_ww.analyze(model)
            return
        report = lightning_ww.analyze(model)
        assert not missing(model, report), seed
        failed = [skip for skip in report.skipped if skip.reason == "failed"]
        assert not failed, (seed, failed)
        report.to_pandas()
        report.to_pandas(like="weightwatcher")
        flags = diagnose(report)
        table = report_table(report, flags.by_trigger, [], at_start=True)
        assert table.replace("\n", "").isprintable(), seed
        str(report)
        if report.layers:
            picture(report.plot)
        for layer in report.layers[:2]:
            if layer.spectrum is not None and layer.alpha is not None:
                picture(layer.plot)


@pytest.mark.parametrize("first", range(0, 50, 10))
def test_fifty_random_models(first: int) -> None:
    for seed in range(first, first + 10):
        try_all(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(50, 1050, 50))
def test_a_thousand_random_models(first: int) -> None:
    for seed in range(first, first + 50):
        try_all(seed)


def test_the_models_are_odd_enough() -> None:
    names = {name for seed in range(50) for name, _ in fuzz.model(seed).named_modules()}
    assert any(not name.isprintable() for name in names)
    dtypes = {parameter.dtype for seed in range(50) for parameter in fuzz.model(seed).parameters()}
    assert {torch.float8_e4m3fn, torch.complex64, torch.float16} <= dtypes
