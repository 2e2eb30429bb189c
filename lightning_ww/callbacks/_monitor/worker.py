"""`Worker`: a process beside training that computes and draws, one request after the other.

It is a new interpreter, not a fork, which is not safe once CUDA is in use, and it does not run the user's script. It has
one thread for each layer, the lowest priority, no accelerator, and no terminal, so that Ctrl-C does not reach it.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, TypeVar

from lightning_ww._errors import LightningWWError
from lightning_ww._threads import OWN

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lightning_ww.callbacks._monitor.worker import serve; serve()"
)
"""The program of the process, which finds the same modules as this one."""

ALONE = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "CUDA_VISIBLE_DEVICES": "",
}
"""Variables of the process's environment."""

NICE = 10
"""The amount by which its priority is lower than that of training."""

LENGTH = struct.Struct("<Q")
"""The form of the number of bytes before each message."""


class WorkerLostError(LightningWWError, RuntimeError):
    """The end of that process before it answered."""


class WorkerFailedError(LightningWWError, RuntimeError):
    """An error in the process beside training; the message names it."""


class Worker:
    """A process that is started by the first request, and ended by `close`, or together with this object or program."""

    def __init__(self) -> None:
        self._line = ThreadPoolExecutor(1, thread_name_prefix=OWN)  # waits for answers
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False
        self.is_ready = False  # whether it has answered, so that its imports are done
        self.is_lost = False  # whether the process has ended before it answered
        self.num_waiting = 0  # requests that were not answered yet

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Ask for a call, with the arguments as they are now.

        Returns:
            The result to come, or a `WorkerFailedError` or `WorkerLostError`.

        Raises:
            Exception: If the arguments cannot be sent.
        """
        request = pickle.dumps((function, arguments), protocol=pickle.HIGHEST_PROTOCOL)
        future = self._line.submit(self._ask, request)
        self.num_waiting += 1
        future.add_done_callback(self._count_down)
        return future

    def close(self) -> None:
        """End the process; requests that wait are canceled."""
        with self._lock:
            self._is_closed = True
            process = self._process
        self._line.shutdown(wait=False, cancel_futures=True)
        if process is not None:
            _end(process)
        self._line.shutdown(wait=True)

    @property
    def process_id(self) -> int | None:
        """The number of the process, once it is started."""
        return None if self._process is None else self._process.pid

    def _count_down(self, _: Future[Any]) -> None:
        self.num_waiting -= 1

    def _ask(self, request: bytes) -> Any:
        process = self._started()
        try:
            _send(process.stdin, request)
            is_fine, answer = pickle.loads(_receive(process.stdout))
        except (OSError, EOFError, ValueError) as error:  # it was ended, or its pipes closed
            self.is_lost = True
            raise WorkerLostError(f"the process has ended ({process.wait()})") from error
        self.is_ready = True
        if not is_fine:
            raise WorkerFailedError(answer)
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._is_closed:
                raise WorkerLostError("the process is not needed any more")
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, json.dumps(sys.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=os.environ | ALONE,
                    start_new_session=True,
                )
                weakref.finalize(self, _end, self._process)
            return self._process


def serve() -> None:
    """Answer requests until there are no more: the main loop of the process."""
    if hasattr(os, "nice"):
        os.nice(NICE)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed is no answer
    while True:
        try:
            request = _receive(requests)
        except EOFError:
            return
        try:
            function, arguments = pickle.loads(request)
            answer = True, function(*arguments)
            message = pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            message = pickle.dumps((False, f"{type(error).__name__}: {error}"))
        _send(answers, message)


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not written is lost
                pipe.close()


def _send(pipe: IO[bytes] | None, message: bytes) -> None:
    assert pipe is not None
    pipe.write(LENGTH.pack(len(message)))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: IO[bytes] | None) -> bytes:
    assert pipe is not None
    (length,) = LENGTH.unpack(_exactly(pipe, LENGTH.size))
    return _exactly(pipe, length)


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    message = pipe.read(count)
    if len(message) < count:
        raise EOFError("the other side has ended")
    return message
