"""A basis that does not fit into memory takes the next storage, on all processes, and it is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from helpers.measured import fit
from helpers.tiny import Tiny

from lightning_ww.callbacks._curvature import storage as storages
from lightning_ww.callbacks._curvature.storage import basis_bytes, fitting_storage
from lightning_ww.curvature.krylov import Storage, lanczos

STEPS, SIZE = 30, 10_000


def trainer(others: list[bool] | None = None, devices: int = 1) -> Any:
    agreed = SimpleNamespace(reduce_boolean_decision=lambda own, all: own and (others is None or others.pop(0)))
    return SimpleNamespace(strategy=agreed, num_devices=devices)


def operator(dtype: torch.dtype = torch.float32) -> Any:
    return SimpleNamespace(shape=(SIZE, SIZE), dtype=dtype, device=torch.device("cpu"))


@pytest.mark.parametrize("storage", get_args(Storage))
def test_the_bytes_of_a_basis_are_those_that_lanczos_keeps(storage: Any) -> None:
    kept = lanczos(
        lambda vector: 2 * vector + vector.roll(1) + vector.roll(-1), torch.ones(SIZE).cumsum(0), STEPS, storage
    )
    basis = kept.basis.numel() * kept.basis.element_size()
    last = 0 if storage == "full" else 2 * SIZE * 4
    assert basis + last == basis_bytes(storage, STEPS, SIZE, torch.float32)


@pytest.mark.parametrize(
    ("left", "devices", "chosen"),
    [
        *(
            (2_400_000, 1, "full"),
            (2_399_999, 1, "half"),
            (1_360_000, 1, "half"),
            (1_359_999, 1, "none"),
            (0, 1, "none"),
        ),
        *((2_400_000, 2, "none"), (4_800_000, 2, "full"), (None, 1, "full")),
    ],
)
def test_the_first_that_takes_at_most_half_of_what_is_left_is_chosen(
    left: int | None, devices: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storages, "available_bytes", lambda device: left)
    found, said = fitting_storage(trainer(devices=devices), operator(), STEPS, "full")
    assert found == chosen
    assert bool(said) == (chosen != "full")


def test_another_process_decides_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "available_bytes", lambda device: 10**12)
    assert fitting_storage(trainer([False, True]), operator(), STEPS, "full")[0] == "half"
    assert fitting_storage(trainer([False, False]), operator(), STEPS, "half")[0] == "none"


def test_a_run_short_of_memory_measures_on_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storages, "available_bytes", lambda device: 4_000)  # 123 parameters
    monitor, _, _ = fit(Tiny(), precision="32-true", num_steps=10, on_error="warn")
    told = [record.getMessage() for record in caplog.records if record.name == "lightning_ww"]
    assert len(told) == 1
    assert 'measures with `storage="none"` from now on: a basis of 10 vectors of 139 parameters would take' in told[0]
    assert monitor.history[0].summary["sharpness"] > 0
    assert "num_outliers" not in monitor.history[0].summary
