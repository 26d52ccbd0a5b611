"""Who may import whom, and what has one home: kept by reading the source, not by running it."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests import floors

MODULES = sorted(floors.modules().values())
PACKAGE = floors.PACKAGE
# Packages that one floor alone may import, or one module of it.
HOMES = {
    "numba": "kernels",
    "llvmlite": "kernels",
    "pyarrow": "data",
    "sklearn": "sklearn",
    "argparse": "cli",
}


def test_every_module_stands_on_a_floor():
    assert sorted(floors.rooms()) == sorted(floors.modules())


# Modules that still import upward: a model's face and its values are one class yet.
PENDING = {"evaluation.formatting"}


@pytest.mark.parametrize("module", sorted(set(floors.modules()) - PENDING))
def test_a_module_imports_only_what_stands_below_it(module):
    height = {name: level for level, name in enumerate(floors.rooms())}
    above = {name for name in floors.arrows()[module] if height[name] >= height[module]}
    assert not above - {module}, f"{module} imports what stands above it"


@pytest.mark.parametrize("package", HOMES)
def test_a_package_is_imported_on_one_floor_alone(package):
    for name, path in floors.modules().items():
        if any(target.split(".")[0] == package for target in floors.imported(path)):
            assert floors.floor_of(name) == HOMES[package], f"{name} imports {package}"


def test_the_pictures_in_the_design_document_are_those_of_the_tree():
    document = floors.DESIGN.read_text()
    assert floors.drawn(document) == document, "python -m tests.floors draws them anew"


def test_only_the_command_line_prints():
    for module in MODULES:
        calls = [n for n in ast.walk(ast.parse(module.read_text())) if isinstance(n, ast.Call)]
        prints = any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls)
        assert not prints or module.parent.name == "cli", module.name


def test_nothing_that_loads_a_file_can_run_one():
    # What numba does with its own cache is held to a private folder by kernels/compile.py.
    modules = {"pickle", "cloudpickle", "marshal", "shelve", "joblib", "dill", "code", "runpy"}
    builtins = {"eval", "exec", "compile", "__import__", "execfile"}
    methods = {"load_module", "exec_module", "fromfile", "memmap", "unpickle"}
    for module in MODULES:
        imported = {name.split(".")[0] for name in floors.imported(module)}
        assert not imported & modules, module.name
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
    ["import fastsoftmax", "import fastsoftmax.cli.main", "from fastsoftmax import Model, load"],
)
def test_importing_is_cheap(statement):
    code = f"import sys; {statement}; print(*sorted({set(HOMES)!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert set(done.stdout.split()) <= {"argparse"}


def test_help_needs_no_numpy():
    code = (
        "import sys; from fastsoftmax.cli.main import main\n"
        "assert main(['--help']) == 0 and 'numpy' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, cwd=PACKAGE.parent
    )
