"""The memory that is left, against what the system says and what an allocation takes."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_ww._memory import _left_in_containers, available_bytes

CPU = torch.device("cpu")


def test_it_is_at_most_what_the_system_has_and_falls_by_what_is_taken() -> None:
    before = available_bytes(CPU)
    assert before is not None
    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert 0 < before <= 1024 * int(facts["MemTotal"].split()[0])
    assert any(falls(2**29) for _ in range(10))  # other processes give and take meanwhile


def falls(size: int) -> bool:
    """Tell whether less is left after an allocation."""
    before = available_bytes(CPU) or 0
    taken = torch.ones(size, dtype=torch.uint8)
    return before - (available_bytes(CPU) or 0) > 0.2 * taken.numel()


def test_a_limit_of_addresses_is_heeded() -> None:
    code = (
        "import resource, torch; from lightning_ww._memory import available_bytes as left; import psutil; "
        "most = psutil.Process().memory_info().vms + 2**30; resource.setrlimit(resource.RLIMIT_AS, (most, most)); "
        "print(left(torch.device('cpu')))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 0.9 * 2**30 < int(said) <= 2**30
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY or sys.platform != "linux"


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory.max": "1000", "memory.current": "700"}, [500]),
        ({"memory.max": "max", "memory.current": "700"}, []),
        ({"memory.limit_in_bytes": "1000", "memory.usage_in_bytes": "700"}, [500]),
        ({"memory.max": "words", "memory.current": "700"}, []),
        ({}, []),
    ],
)
def test_a_containers_limit_leaves_what_is_not_in_use_and_its_cache(
    files: dict[str, str], left: list[int], tmp_path: Path
) -> None:
    for folder in (tmp_path, tmp_path / "memory"):
        folder.mkdir(exist_ok=True)
    form = tmp_path / "memory" if "memory.limit_in_bytes" in files else tmp_path
    for name, text in {**files, "memory.stat": "anon 500\ninactive_file 200"}.items():
        (form / name).write_text(text + "\n")
    found = list(_left_in_containers(tmp_path))
    assert set(found) == set(left)


def test_other_devices_are_not_known() -> None:
    assert available_bytes(torch.device("meta")) is None
