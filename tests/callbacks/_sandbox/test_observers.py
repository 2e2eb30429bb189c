"""Hooks and calls of those that only watch are left out; the model's own stay."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from helpers.networks import quiet_trainer
from pytorch_lightning import Callback
from pytorch_lightning.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard.writer import SummaryWriter

from lightning_ww.callbacks._sandbox.observers import own_hooks, silent_libraries


class Counting(Callback):
    """Counts passes by a method, a closure or a partial."""

    def __init__(self) -> None:
        self.seen = 0

    def hook(self, *_: Any) -> None:
        self.seen += 1

    def closure(self) -> Any:
        return lambda *_: self.hook()


def own(*_: Any) -> None:
    """A hook of the model's own."""


def test_hooks_of_callbacks_and_loggers_are_left_out_and_the_models_stay(tmp_path: Path) -> None:
    counting, logger = Counting(), CSVLogger(tmp_path)
    trainer = quiet_trainer(callbacks=[counting], logger=logger)
    model_hooks = [own, functools.partial(own, 1), lambda *_: None]
    others = [
        counting.hook,
        counting.closure(),
        functools.partial(own, counting),
        lambda *_: logger.log_metrics({}),
    ]
    hooks = OrderedDict(enumerate([*model_hooks, *others]))
    assert list(own_hooks(hooks, trainer).values()) == model_hooks


def test_a_library_that_logs_is_silent_and_speaks_again(tmp_path: Path) -> None:
    writer, before = SummaryWriter(str(tmp_path)), SummaryWriter.add_scalar
    with silent_libraries():
        writer.add_scalar("a", 1.0, 0)
        assert SummaryWriter.add_scalar is not before
    assert SummaryWriter.add_scalar is before
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    writer.add_scalar("a", 1.0, 1)
    writer.close()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) > size


def test_other_threads_log_meanwhile_and_the_last_to_end_puts_all_back(tmp_path: Path) -> None:
    writer, before = SummaryWriter(str(tmp_path)), SummaryWriter.add_scalar
    is_in, may_end = threading.Event(), threading.Event()

    def beside() -> None:
        writer.add_scalar("beside", 1.0, 0)
        with silent_libraries():
            writer.add_scalar("silent", 1.0, 0)
            is_in.set()
            may_end.wait()

    with silent_libraries(), silent_libraries():  # once more within, as a second loss would
        thread = threading.Thread(target=beside)
        thread.start()
        is_in.wait()
        writer.add_scalar("silent", 1.0, 1)
    writer.add_scalar("after", 1.0, 0)  # while the other thread is still silent
    may_end.set()
    thread.join()
    assert SummaryWriter.add_scalar is before
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {"beside", "after"}
