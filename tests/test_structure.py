"""The house rules: what is public, which way imports point, and what an import loads."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lightning_ww"
FILES = sorted(PACKAGE.rglob("*.py"))

# callbacks → panels, diagnosis, measure → weights, curvature, report → third parties
MAY_IMPORT = {
    "weights": {"weights"},
    "report": {"weights", "report", "parity", "panels"},  # its `plot`s load the panels when they are called
    "parity": {"weights", "report", "parity"},
    "measure": {"weights", "report"},
    "analyze": {"weights", "report", "measure"},
    "diagnosis": {"report", "diagnosis"},
    "history": {"report", "diagnosis", "curvature", "history"},
    "curvature": {"curvature", "panels"},  # so does a spectrum's
    "panels": {"weights", "report", "diagnosis", "curvature", "panels"},
    "callbacks": {"weights", "report", "measure", "diagnosis", "curvature", "history", "panels", "callbacks"},
    "__init__": {"weights", "report", "analyze"},
}


def room(path: Path) -> str:
    """The folder or file of the package's top level that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, also lazily and for types."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    inside = {name.split(".")[1] for name in imports(path) if name.startswith("lightning_ww.")}
    assert inside <= MAY_IMPORT[room(path)]


def test_only_one_file_imports_lightning() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(name.split(".")[0] in ("pytorch_lightning", "lightning", "lightning_fabric") for name in imports(path))
    }
    assert found == {"callbacks/_lightning.py"}


@pytest.mark.parametrize("module", ["lightning_ww", "lightning_ww.callbacks", "lightning_ww.curvature"])
def test_public_names_are_sorted_and_there(module: str) -> None:
    public = importlib.import_module(module)
    order = sorted(public.__all__, key=lambda name: (name.islower(), not name.isupper(), name))
    assert list(public.__all__) == order
    for name in public.__all__:
        assert getattr(public, name).__doc__, name
    shown = {name for name in vars(public) if not name.startswith("_")}
    submodules = {path.stem for path in Path(public.__file__ or "").parent.iterdir()}
    assert shown - submodules <= set(public.__all__)


def test_public_names_are_these() -> None:
    import lightning_ww
    import lightning_ww.callbacks

    assert lightning_ww.__all__ == [
        *("METRICS", "LayerReport", "NoPowerLawError", "PowerLawFit", "SkippedLayer", "TailComparison"),
        *("WeightReport", "analyze", "compare_tails", "fit_power_law", "hill_alpha"),
    ]
    assert lightning_ww.callbacks.__all__ == [
        "CurvatureMonitor",
        "FlagThresholds",
        "SpectralEarlyStopping",
        "SpectralStoppingReason",
        "WeightSpectrumMonitor",
    ]


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh process after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_import_loads_neither_lightning_nor_matplotlib() -> None:
    heavy = {"pytorch_lightning", "lightning", "matplotlib", "pandas", "powerlaw", "tensorboard", "scipy", "sklearn"}
    loaded = loaded_by("import lightning_ww")
    assert "torch" in loaded
    assert not loaded & heavy


def test_analysis_loads_neither_lightning_nor_matplotlib() -> None:
    loaded = loaded_by("import lightning_ww, torch; lightning_ww.analyze(torch.nn.Linear(30, 20), mp_fit=True)")
    assert not loaded & {"pytorch_lightning", "lightning", "matplotlib", "pandas", "powerlaw"}


def test_files_are_short() -> None:
    long = {str(path.relative_to(PACKAGE)): n for path in FILES if (n := len(path.read_text().splitlines())) > 320}
    assert not long


def test_the_root_link_points_at_the_callbacks() -> None:
    link = PACKAGE.parent / "callbacks"
    if not link.is_symlink():  # a clone without links has a text file that names the folder
        assert link.read_text() == "lightning_ww/callbacks"
    else:
        assert link.readlink() == Path("lightning_ww/callbacks")
