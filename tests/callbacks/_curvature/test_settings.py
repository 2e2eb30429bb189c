"""What is read is what was asked for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_args, get_type_hints

from lightning_ww.callbacks import CurvatureMonitor
from lightning_ww.callbacks._curvature.settings import Matrix, Settings


def test_every_setting_is_the_argument_of_its_name() -> None:
    arguments: dict[str, Any] = {
        "matrix": "ggn",
        "params": ("net.*",),
        "loss_fn": lambda module, batch: None,
        "ggn_fn": lambda module, batch: None,
        "bn_mode": "train",
        "mode": "train",
        "num_probes": 3,
        "seed": 5,
        "storage": "half",
        "self_check": False,
        "optimizer_sharpness": True,
        "landscape": 3,
        "blocks": ("head.*",),
    }
    renamed = {"outputs_fn": "ggn_fn", "batch_norm": "bn_mode", "preconditioned": "optimizer_sharpness"}
    settings = asdict(CurvatureMonitor(**arguments)._settings)
    assert settings.keys() == get_type_hints(Settings).keys()
    for name, value in settings.items():
        expected = arguments[renamed.get(name, name)]
        assert value == expected or list(value) == list(expected)
    assert arguments["matrix"] in get_args(Matrix)
