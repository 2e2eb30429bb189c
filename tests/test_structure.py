"""The house rules: what is public, which way imports point, and what an import loads."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import re
import subprocess
import sys
import tokenize
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from helpers.sources import FILES, PACKAGE, imports

MAX_LINES = 220
"""Of code, in one file: a file is one concept."""

# callbacks → triggers → history → weights, curvature → drawing, and what starts with an underscore → third parties
GROUND = {"drawing", "_blas", "_checks", "_columns", "_errors", "_pandas", "_threads", "_torch"}
MAY_IMPORT = {
    "_errors": set(),
    "_pandas": set(),
    "_torch": set(),
    "_blas": set(),
    "_columns": set(),
    "_files": set(),
    "_memory": set(),
    "_threads": set(),
    "_checks": {"_errors"},
    "drawing": {"drawing", "_threads", "_torch"},
    "weights": {"weights"} | GROUND,
    "curvature": {"curvature"} | GROUND,
    "gradients": {"gradients"} | GROUND,
    "history": {"history"} | GROUND,
    "measurements": {"measurements", "history", "curvature"} | GROUND,
    "triggers": {"triggers", "history", "weights"} | GROUND,
    "callbacks": {"callbacks", "triggers", "history", "measurements", "weights", "curvature", "gradients"}
    | GROUND
    | {"_files", "_memory"},
    "__init__": {"history", "measurements", "triggers", "weights"} | GROUND,
}
WITHIN_CALLBACKS = {
    "_monitor": {"_monitor"},
    "_sandbox": {"_sandbox", "_monitor"},
    "_weights": {"_weights", "_monitor"},
    "_curvature": {"_curvature", "_sandbox", "_monitor"},
    "_gradients": {"_gradients", "_monitor"},
}


def room(path: Path) -> str:
    """The folder or file of the package's top level that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    assert room(path) in MAY_IMPORT, "a new room: say in `MAY_IMPORT` what it may import"
    inside = {name.split(".")[1] for name in imports(path) if name.startswith("lightning_ww.")}
    assert inside <= MAY_IMPORT[room(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_of_the_callbacks_point_one_way(path: Path) -> None:
    parts = path.relative_to(PACKAGE).parts
    if parts[0] != "callbacks" or parts[1] not in WITHIN_CALLBACKS:
        return
    inside = {name.split(".")[2] for name in imports(path) if name.startswith("lightning_ww.callbacks.")}
    assert inside <= WITHIN_CALLBACKS[parts[1]]


def test_no_imports_go_round_in_a_circle() -> None:
    """Those that are made when a file is loaded, and those for types."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    graph = {
        name: {
            known
            for used in imports(path, also_lazy=False)
            for known in (used, used.rpartition(".")[0])
            if known in names and known != name
        }
        for name, path in names.items()
    }
    assert tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_only_one_file_imports_lightning() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(name.split(".")[0] in ("pytorch_lightning", "lightning", "lightning_fabric") for name in imports(path))
    }
    assert found == {"callbacks/_monitor/lightning.py"}


PUBLIC = (
    *("lightning_ww", "lightning_ww.weights", "lightning_ww.curvature", "lightning_ww.gradients"),
    "lightning_ww.callbacks",
)


@pytest.mark.parametrize("module", PUBLIC)
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
    import lightning_ww.curvature
    import lightning_ww.gradients
    import lightning_ww.weights

    assert lightning_ww.__all__ == [
        *("KEY_METRICS", "METRICS"),
        *("CorrelationTrap", "CurvatureMeasurement", "Diagnosis", "ExplodingGradients", "Flag", "History"),
        *("Instability", "LayerReport"),
        *("LightningWWError", "Measurement", "Moment", "Nonfinite", "NotLearning", "OverTrained"),
        *(
            "Plateau",
            "RankCollapse",
            "Sharpness",
            "SkippedLayer",
            "Trigger",
            "UnderTrained",
            "VanishingGradients",
            "WeightReport",
            "analyze",
            "diagnose",
        ),
    ]
    assert lightning_ww.weights.__all__ == [
        *("MarchenkoPasturFit", "NoPowerLawError", "PowerLawFit", "TailComparison"),
        *("compare_tails", "fit_marchenko_pastur", "fit_power_law", "hill_alpha"),
    ]
    assert lightning_ww.curvature.__all__ == [
        *(
            "BatchNoise",
            "Block",
            "CurvatureOperator",
            "EdgeOfStability",
            "GGNOperator",
            "HessianOperator",
            "Landscape",
            "LearningCoefficient",
            "NotFiniteError",
            "ReducedOperator",
        ),
        *("ScaledOperator", "SpectralDensity", "WrongDerivativeError"),
        *(
            "batch_noise",
            "block_spectra",
            "check_second_derivatives",
            "learning_coefficient",
            "loss_landscape",
            "loss_plane",
            "ritz_directions",
        ),
        *("select_parameters", "spectral_density"),
    ]
    assert lightning_ww.gradients.__all__ == [
        *("GRADIENT_METRICS", "Activations", "GradientReader", "GradientReport", "LayerGradients", "activations"),
    ]
    assert lightning_ww.callbacks.__all__ == [
        *("CurvatureMonitor", "GradientMonitor", "LearningCoefficientMonitor", "SpectralEarlyStopping"),
        *("SpectralStoppingReason", "WeightSpectrumMonitor"),
    ]


def test_no_public_name_hides_a_module() -> None:
    for path in FILES:
        if path.name == "__init__.py":
            public = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).parent.parts))
            modules = {one.stem for one in path.parent.iterdir()} - {"__init__"}
            hidden = [name for name in modules if not inspect.ismodule(vars(public).get(name, sys))]
            assert not hidden, path


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


def lines_of_code(path: Path) -> int:
    """Lines with code on them: docstrings, comments and blanks do not count."""
    text = path.read_text()
    docstrings = [
        node.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    described = {line for one in docstrings for line in range(one.lineno, (one.end_lineno or 0) + 1)}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    nothing = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    found = {line for one in tokens if one.type not in nothing for line in range(one.start[0], one.end[0] + 1)}
    return len(found - described)


def test_files_are_short() -> None:
    assert not {str(path.relative_to(PACKAGE)): n for path in FILES if (n := lines_of_code(path)) > MAX_LINES}


TESTS = PACKAGE.parent / "tests"
TEST_FILES = sorted(TESTS.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_module_has_a_file_of_tests(path: Path) -> None:
    place = path.relative_to(PACKAGE)
    names = {"__init__": place.parent.name.lstrip("_")} if place.parent.name == "_sandbox" else {}
    stem = names.get(path.stem, path.stem.lstrip("_"))
    if path.stem != "__init__" or names:
        assert (TESTS / place.parent / f"test_{stem}.py").exists()


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_imports_a_test_nor_replaces_a_private_name(path: Path) -> None:
    assert not [name for name in imports(path) if any(part.startswith("test_") for part in name.split("."))]
    replaced = re.findall(r"monkeypatch\.(?:setattr|setitem|delattr)\(([^()]*)", path.read_text())
    assert not [names for names in replaced if re.search(r"(^|[\s.\"'])_[a-z]", names)]


def test_the_root_link_points_at_the_callbacks() -> None:
    link = PACKAGE.parent / "callbacks"
    if not link.is_symlink():  # a clone without links has a text file that names the folder
        assert link.read_text() == "lightning_ww/callbacks"
    else:
        assert link.readlink() == Path("lightning_ww/callbacks")
