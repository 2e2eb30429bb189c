"""Keys get group and prefix where a view meets loggers and `callback_metrics`."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.loggers.logger import DummyLogger

from lightning_ww.callbacks._monitor.guard import Guard
from lightning_ww.callbacks._monitor.publisher import Publisher, to_callback_metrics
from lightning_ww.callbacks._monitor.view import View


class Keeping(DummyLogger):
    """Keeps its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, tuple[float, int]] = {}

    @property
    def experiment(self) -> Any:
        return object()

    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        self.kept |= {key: (value, step) for key, value in metrics.items()}


class Holder:
    """In place of a Trainer."""

    is_global_zero, global_step = True, 7

    def __init__(self, *loggers: Any) -> None:
        self.loggers, self.callback_metrics = list(loggers), dict[str, Any]()


def test_keys_get_group_and_prefix_once() -> None:
    logger = Keeping()
    trainer: Any = Holder(logger)
    publisher = Publisher(trainer, Guard("Monitor", "raise"), "ww", "a/", 3)
    publisher.scalars({"alpha": 1.0}, View(scalars={"alpha/encoder.0": 2.0}), {"flags/rank_collapse": 0.0})
    assert logger.kept == {"a/ww/alpha": (1.0, 3), "a/ww.alpha/encoder.0": (2.0, 3), "a/flags/rank_collapse": (0.0, 3)}


def test_callback_metrics_get_finite_numbers_alone() -> None:
    trainer: Any = Holder()
    to_callback_metrics(trainer, {"a": 1.5, "b": float("nan"), "c": float("inf")}, "ww", "x/")
    assert {key: float(value) for key, value in trainer.callback_metrics.items()} == {"x/ww/a": 1.5}
