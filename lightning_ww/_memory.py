"""The memory that is left, on a device or for this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

CGROUPS = Path("/sys/fs/cgroup")
"""The folder in which Linux shows the limits of a container."""

FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""The names of the limit and of what is in use, in the newer and the older form."""


def available_bytes(device: torch.device) -> int | None:
    """The memory that can still be taken on a device, in bytes; ``None`` if it is not known.

    On the CPU it is what the system, the containers around this process and its limit of addresses leave, the least of them.
    """
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reserved
    if device.type != "cpu":
        return None
    return max(0, min([psutil.virtual_memory().available, *_left_in_containers(), *_left_of_addresses()]))


def _left_in_containers(root: Path = CGROUPS) -> Iterator[int]:
    """What each container around this process leaves; its cache of files is given back when memory is short."""
    for folder in _folders(root):
        for limit, used in FILES:
            try:
                said, taken = (folder / limit).read_text().strip(), int((folder / used).read_text())
                most = None if said == "max" else int(said)
                facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):
                continue
            if most is not None:
                yield most - taken + int(facts.get("inactive_file", 0))


def _folders(root: Path) -> Iterator[Path]:
    """The folders of this process's containers, from the innermost outwards."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / controllers
        own = top / path.lstrip("/")
        yield from dict.fromkeys([own, *(one for one in own.parents if one.is_relative_to(top)), top])


def _left_of_addresses() -> Iterator[int]:
    if sys.platform == "linux":
        process = psutil.Process()
        most, _ = process.rlimit(psutil.RLIMIT_AS)
        if most != psutil.RLIM_INFINITY:
            yield most - process.memory_info().vms
