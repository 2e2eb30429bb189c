"""What is published: a wheel, by way of an sdist, that owns one top-level name and holds the callbacks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from helpers.sources import FILES, imports

ROOT = Path(__file__).parents[1]


def tracked_copy(target: Path, *, links: bool) -> Path:
    """The project as a clone would have it; without links, the link is a text file, as on a default Windows."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "lightning_ww", "callbacks", "tests/conftest.py"):
        source, copy = ROOT / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if name == "callbacks":
            if links:
                copy.symlink_to("lightning_ww/callbacks")
            else:
                copy.write_text("lightning_ww/callbacks")
        elif source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    return target


@pytest.fixture(scope="module", params=[True, False], ids=["with links", "without links"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tracked_copy(tmp_path_factory.mktemp("clone"), links=request.param)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(project)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_wheel_built_from_the_sdist_owns_one_name_and_holds_every_file(built: Path) -> None:
    wheel = zipfile.ZipFile(next(built.glob("*.whl")))
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in names} == {"lightning_ww"}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "lightning_ww").rglob("*.py")}
    assert set(names) == sources | {"lightning_ww/py.typed"}
    assert "lightning_ww/callbacks/weight_spectrum.py" in names
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
    assert "Name: lightning-ww" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.10" in metadata


def test_sdist_holds_the_license_and_the_package(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "lightning_ww/callbacks/__init__.py"} <= names


def test_wheel_works_from_elsewhere(built: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    code = (
        "import lightning_ww, lightning_ww.callbacks as c, pathlib;"
        f"assert pathlib.Path(c.__file__).is_relative_to({str(tmp_path)!r}), c.__file__;"
        "print(c.WeightSpectrumMonitor(), lightning_ww.__version__)\n"
        "try: import callbacks\n"
        "except ModuleNotFoundError: print('not ours')"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not ours" in done.stdout


def test_every_import_is_declared() -> None:
    declared = [line.replace(" ", "") for line in requires("lightning-ww") or []]
    needed = {name.split(".")[0] for path in FILES for name in imports(path)} - set(sys.stdlib_module_names)
    for module in needed - {"lightning_ww", "__future__"}:
        module = {"PIL": "pillow"}.get(module, module)
        assert any(line.startswith((module, module.replace("_", "-"))) for line in declared), module
    for required in ("torch>=2.6", "gpytorch", "powerlaw", "tensorboard"):
        assert required in declared
    lightning = next(line for line in declared if line.startswith("pytorch-lightning"))
    assert set(lightning.removeprefix("pytorch-lightning").split(",")) == {">=2.4", "!=2.6.2", "!=2.6.3", "<3"}
