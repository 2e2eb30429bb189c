"""An `EarlyStopping` that looks more often than we measure is told what to set."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.networks import Classifier, data, quiet_trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from lightning_ww.callbacks import CurvatureMonitor, GradientMonitor, LearningCoefficientMonitor, WeightSpectrumMonitor


def fit(*callbacks: Any, epochs: int = 1, **options: Any) -> Any:
    trainer = quiet_trainer(callbacks=list(callbacks), max_epochs=epochs, enable_checkpointing=True, **options)
    trainer.fit(Classifier(), data(), data(16, shuffle=False))
    return trainer


def test_it_is_told_once_what_to_set(tmp_path: Path) -> None:
    watching = EarlyStopping("curvature/sharpness", mode="min", strict=False)
    said = (
        r"`CurvatureMonitor` measures at every 5th epoch, and `EarlyStopping\(monitor='curvature/sharpness', patience=3\)` "
        "takes an epoch without a measurement for one without improvement: it may stop before the next one. "
        "Set `patience=15`, or `every_n_epochs=1`."
    )
    with pytest.warns(UserWarning, match=said) as caught:
        fit(CurvatureMonitor(num_steps=2), watching, ModelCheckpoint(tmp_path), epochs=2)
    assert len([one for one in caught if "takes an epoch" in str(one.message)]) == 1


@pytest.mark.parametrize(
    ("monitor", "watching"),
    [
        (lambda: WeightSpectrumMonitor(), lambda _: EarlyStopping("ww/alpha")),
        (lambda: WeightSpectrumMonitor(5), lambda _: EarlyStopping("ww/alpha", patience=15)),  # as it was advised
        (lambda: WeightSpectrumMonitor(5), lambda _: EarlyStopping("loss", strict=False)),
        (lambda: WeightSpectrumMonitor(5), lambda folder: ModelCheckpoint(folder, monitor="ww/alpha")),
        (lambda: WeightSpectrumMonitor(None, 2), lambda _: EarlyStopping("ww/alpha")),
    ],
    ids=["every epoch", "patient", "another metric", "no early stopping", "by steps"],
)
def test_others_are_not(monitor: Any, watching: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(monitor(), watching(tmp_path), ModelCheckpoint(tmp_path))
    assert not [one for one in caught if "takes an epoch" in str(one.message)]


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize(
    ("ours", "key", "options", "is_said"),
    [
        (GradientMonitor(2), "gradients/norm", {}, True),
        (GradientMonitor(), "gradients/norm", {"val_check_interval": 0.5}, True),
        (GradientMonitor(), "gradients/norm", {}, False),
        (GradientMonitor(2), "gradients/weight_norm", {}, False),
        (LearningCoefficientMonitor(num_draws=2, num_burnin=1, num_batches=1), "slt/llc", {}, True),
    ],
)
def test_who_looks_before_the_first_value_is_told_what_to_set(
    ours: Any, key: str, options: dict[str, Any], is_said: bool
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watching = EarlyStopping(key, strict=True, patience=9)
        with suppress(RuntimeError):  # Lightning's own, as without us
            fit(ours, watching, epochs=2, **options)
    said = [str(one.message) for one in caught if "strict=False" in str(one.message)]
    assert len(said) == is_said
    follows = EarlyStopping(key, strict=False, patience=9)
    assert fit(ours, follows, epochs=2, **options).current_epoch == 2  # the advice works
