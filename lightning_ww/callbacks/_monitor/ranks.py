"""Work that is shared out over the processes of a run, and brought together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from lightning_ww._errors import LightningWWError
from lightning_ww.callbacks._monitor.lightning import from_all

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import Trainer

T = TypeVar("T")


def owners(works: Sequence[float], ranks: int) -> list[int]:
    """Share out items: the most work first, each to the process that has the least.

    Args:
        works: The work that each item takes, equal on all processes.
        ranks: The number of processes.

    Returns:
        The process of each item, the same on all processes.
    """
    loads, owned = [0.0] * ranks, [0] * len(works)
    for item in sorted(range(len(works)), key=lambda item: -works[item]):
        rank = loads.index(min(loads))
        loads[rank] += works[item]
        owned[item] = rank
    return owned


def parts_of_all(trainer: Trainer, find: Callable[[], T]) -> list[T]:
    """Run a function on each process, and return what all of them found; an error on one is an error on all.

    A collective call, in which a process takes part even if its function fails.

    Raises:
        LightningWWError: If another process has failed.
    """
    failed: Exception | None = None
    found: list[T] = []
    try:
        found.append(find())
    except Exception as error:
        failed = error
    answers = from_all(trainer, (found, str(failed)))
    if failed is not None:
        raise failed
    for part, why in answers:
        if not part:
            raise LightningWWError(f"another process failed: {why}")
    return [part for parts, _ in answers for part in parts]
