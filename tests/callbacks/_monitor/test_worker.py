"""A process beside training: its answers, its errors, and its end."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_ww._threads import others_run
from lightning_ww.callbacks._monitor.worker import Worker, WorkerFailedError, WorkerLostError, usable_cores


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def is_alive(process: int | None) -> bool:
    return process is not None and Path(f"/proc/{process}").exists()


def test_answers_come_in_order_from_another_process_with_one_thread(worker: Worker) -> None:
    answers: list[Any] = [worker.submit(os.getpid), worker.submit(torch.get_num_threads), worker.submit(math.sqrt, 2.0)]
    process, threads, root = [answer.result() for answer in answers]
    assert process == worker.process_id != os.getpid()
    assert (threads, root) == (1, math.sqrt(2.0))
    assert worker.submit(os.getpriority, os.PRIO_PROCESS, 0).result() == min(
        19, os.getpriority(os.PRIO_PROCESS, 0) + 10
    )
    assert worker.num_waiting == 0


def test_arguments_are_sent_as_they_are_at_the_time(worker: Worker) -> None:
    values = np.arange(5.0)
    answer = worker.submit(np.sum, values)
    values[:] = 0
    assert answer.result() == 10.0


def test_an_error_there_is_told_and_the_process_goes_on(worker: Worker) -> None:
    with pytest.raises(WorkerFailedError, match="ValueError"):
        worker.submit(math.sqrt, -1).result()
    with pytest.raises(Exception, match="pickle"):
        worker.submit(lambda: 1)
    assert worker.submit(print, "words that are no answer").result() is None
    assert worker.submit(int, "3").result() == 3


def test_its_thread_is_none_of_the_users(worker: Worker) -> None:
    worker.submit(int).result()
    own = [thread for thread in threading.enumerate() if thread.name.startswith("lightning-ww")]
    assert own
    assert not others_run()


@pytest.mark.parametrize("end", ["killed", "closed", "closed while busy"])
def test_nothing_is_left_behind(end: str) -> None:
    worker = Worker()
    worker.submit(int).result()
    process, began = worker.process_id, time.monotonic()
    assert is_alive(process)
    answers: list[Any] = [] if end == "closed" else [worker.submit(time.sleep, 100), worker.submit(int)]
    if end == "killed":
        os.kill(process or 0, signal.SIGKILL)
        with pytest.raises(WorkerLostError, match="-9"):
            answers[0].result()
        assert worker.is_lost
    worker.close()
    for answer in answers:
        with pytest.raises(Exception):  # noqa: B017, PT011 - lost, or canceled
            answer.result(timeout=10)
    assert not is_alive(process)
    assert worker.num_waiting == 0
    assert not any(
        thread.name.startswith("lightning-ww_0") and not thread.is_alive() for thread in threading.enumerate()
    )
    assert time.monotonic() - began < 50
    with pytest.raises(RuntimeError):
        worker.submit(int)


def test_one_that_was_never_asked_has_no_process() -> None:
    worker = Worker()
    assert worker.process_id is None
    worker.close()


def test_usable_cores_are_those_that_the_system_grants() -> None:
    assert usable_cores() == len(os.sched_getaffinity(0)) if sys.platform == "linux" else usable_cores() >= 1
