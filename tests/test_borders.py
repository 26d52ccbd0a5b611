"""Who may import whom, and what has one home: kept by reading the source, not by running it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "fastsoftmax"
MODULES = sorted(PACKAGE.rglob("*.py"))
INNER = [module for module in MODULES if module != PACKAGE / "__init__.py"]
# A module imports from its own room and from those above it.
ROOMS = [
    {"errors"},
    {"kernels"},
    {"conditioning", "files", "labels", "options", "progress", "schedules"},
    {"data"},
    {"model", "model_file", "tensors"},
    {"metrics", "report"},
    {
        "begin",
        "calibration",
        "checkpoint",
        "curvature",
        "evaluation",
        "lbfgs",
        "learner",
        "lineage",
        "moments",
        "needs",
        "oddities",
        "optimum",
        "prediction",
        "ranking",
        "run",
        "settle",
        "solver",
        "state",
        "sweep",
        "training",
        "warmup",
    },
    {"estimator"},
    {"commands", "inspection", "tables", "wording"},
    {"cli", "__main__"},
]
HOMES = {
    "numba": "kernels",
    "llvmlite": "kernels",
    "pyarrow": "data",
    "sklearn": "estimator",
    "argparse": "cli",
}


def room_of(module: Path) -> str:
    """Return the first part of a module's name below the package."""
    return module.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(module: Path, *, everywhere: bool = True) -> list[str]:
    """Return the dotted names that a module imports, those for type checkers left out."""
    tree = ast.parse(module.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: list[str] = []
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def test_every_module_stands_in_a_room():
    rooms = set().union(*ROOMS)
    strangers = {room_of(module) for module in MODULES} - rooms - {"__init__"}
    assert not strangers


@pytest.mark.parametrize("module", INNER, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_a_module_imports_only_from_rooms_above_it(module):
    height = {name: level for level, room in enumerate(ROOMS) for name in room}
    # A model's methods reach down for what uses a model; they do so when they are called.
    everywhere = room_of(module) != "model"
    own = height[room_of(module)]
    for name in imports(module, everywhere=everywhere):
        first, _, rest = name.partition(".")
        if first == "fastsoftmax":
            room = rest.split(".")[0]
            assert height.get(room, -1) <= own, f"{module.name} imports {name}"


@pytest.mark.parametrize("package", HOMES)
def test_a_package_is_imported_in_one_room_alone(package):
    for module in MODULES:
        if any(name.split(".")[0] == package for name in imports(module)):
            assert room_of(module) == HOMES[package], f"{module.name} imports {package}"


def test_only_the_command_line_prints():
    for module in MODULES:
        calls = [n for n in ast.walk(ast.parse(module.read_text())) if isinstance(n, ast.Call)]
        prints = any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls)
        assert not prints or room_of(module) == "cli", module.name


def test_nothing_that_loads_a_file_can_run_one():
    # What numba does with its own cache is held to a private folder by kernels/compile.py.
    modules = {"pickle", "cloudpickle", "marshal", "shelve", "joblib", "dill", "code", "runpy"}
    builtins = {"eval", "exec", "compile", "__import__", "execfile"}
    methods = {"load_module", "exec_module", "fromfile", "memmap", "unpickle"}
    for module in MODULES:
        assert not {name.split(".")[0] for name in imports(module)} & modules, module.name
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Name):
                assert node.id not in builtins, f"{module.name}, line {node.lineno}"
            elif isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", f"{module.name}, line {node.lineno}"
            elif isinstance(node, ast.Attribute):
                numpys_own = ast.unparse(node) in ("np.load", "numpy.load")
                assert node.attr not in methods, f"{module.name}, line {node.lineno}"
                assert not numpys_own, f"{module.name}, line {node.lineno}"


@pytest.mark.parametrize(
    "statement",
    ["import fastsoftmax", "import fastsoftmax.cli", "from fastsoftmax import Model, load"],
)
def test_importing_is_cheap(statement):
    code = f"import sys; {statement}; print(*sorted({set(HOMES)!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert set(done.stdout.split()) <= {"argparse"}


def test_help_needs_no_numpy():
    code = (
        "import sys; from fastsoftmax.cli import main\n"
        "assert main(['--help']) == 0 and 'numpy' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, cwd=PACKAGE.parent
    )
