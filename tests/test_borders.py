"""Who may import whom, and what has one home: kept by reading the source, not by running it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests import floors

MODULES = sorted(floors.modules().values())
PACKAGE = floors.PACKAGE
# Packages that one floor alone may import, or one module of it; some are guests to come.
HOMES = {
    "numba": "kernels",
    "llvmlite": "kernels",
    "pyarrow": "data",
    "distributed": "engines",
    "onnx": "model.onnx",
    "matplotlib": "evaluation.plots",
    "sklearn": "sklearn",
    "argparse": "cli.parsers",
}
# What models and their evaluation load of the kernels: it compiles nothing.
COMPILES_NOTHING = {"kernels.parts"}


def test_every_module_stands_on_a_floor():
    assert sorted(floors.rooms()) == sorted(floors.modules())


@pytest.mark.parametrize("module", sorted(floors.modules()))
def test_a_module_imports_only_what_stands_below_it(module):
    height = {name: level for level, name in enumerate(floors.rooms())}
    above = {name for name in floors.arrows()[module] if height[name] >= height[module]}
    assert not above - {module}, f"{module} imports what stands above it"


@pytest.mark.parametrize("package", HOMES)
def test_a_package_has_one_home(package):
    for name, path in floors.modules().items():
        if any(target.split(".")[0] == package for target in floors.imported(path)):
            assert HOMES[package] in (name, floors.floor_of(name)), f"{name} imports {package}"


def reached(module: str, *, at_once: bool) -> set[str]:
    """Return all modules that a module leads to; at_once: that importing it imports."""
    arrows, found, left = floors.arrows(at_once=at_once), set(), [module]
    while left:
        new = arrows[left.pop()] - found
        found |= new
        left += new
    return found


@pytest.mark.parametrize(
    "module", [name for name in floors.rooms() if name.startswith(("model.", "evaluation."))]
)
def test_models_and_their_evaluation_neither_train_nor_compile(module):
    leads_to = set(map(floors.floor_of, reached(module, at_once=False)))
    assert not leads_to & {"optim", "training", "sklearn", "cli"}
    assert "kernels" not in set(map(floors.floor_of, floors.arrows()[module]))
    loaded = {name for name in reached(module, at_once=True) if name.startswith("kernels.")}
    assert loaded <= COMPILES_NOTHING


def definitions(kind: type | tuple[type, ...]) -> Iterator[tuple[str, Any]]:
    """Yield the module of each class or function, and its node."""
    for name, path in floors.modules().items():
        for node in ast.walk(floors.tree(path)):
            if isinstance(node, kind):
                yield name, node


def test_no_public_class_name_is_defined_twice():
    homes: dict[str, list[str]] = {}
    for module, node in definitions(ast.ClassDef):
        if not node.name.startswith("_"):
            homes.setdefault(node.name, []).append(module)
    assert not {name: there for name, there in homes.items() if len(there) > 1}


def length(node: Any) -> int:
    """Return how many lines a class or function takes."""
    return node.end_lineno - node.lineno + 1


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the attributes that a class gives itself, but for scikit-learn's parameters."""
    given: set[str] = set()
    for method in node.body:
        is_sklearns = node.name == "SoftmaxClassifier" and getattr(method, "name", "") == "__init__"
        for inner in () if is_sklearns else ast.walk(method):
            is_stored = isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
            if is_stored and isinstance(inner.value, ast.Name) and inner.value.id == "self":
                given.add(inner.attr)
    return given


def test_a_class_has_at_most_250_lines_and_15_attributes():
    for module, node in definitions(ast.ClassDef):
        assert length(node) <= 250, f"{module}.{node.name}"
        assert len(attributes(node)) <= 15, f"{module}.{node.name}"


def test_a_function_has_at_most_60_lines_and_12_parameters():
    for module, node in definitions((ast.FunctionDef, ast.AsyncFunctionDef)):
        name, given = f"{module}.{node.name}", node.args
        count = len(given.posonlyargs + given.args + given.kwonlyargs)
        # A builder of kernels is as long as the kernels that are built in it.
        inner = sum(isinstance(other, ast.FunctionDef) for other in ast.walk(node)) - 1
        builds = floors.floor_of(module) == "kernels" and inner > 0
        if name != "sklearn.estimator.__init__":  # scikit-learn wants every parameter there
            assert builds or length(node) <= 60, name
            assert count <= 12, name


def test_the_top_level_has_at_most_12_modules():
    assert len(list(PACKAGE.glob("*.py"))) <= 12


def test_the_pictures_in_the_design_document_are_those_of_the_tree():
    document = floors.DESIGN.read_text()
    assert floors.drawn(document) == document, "python -m tests.floors draws them anew"


def test_only_the_command_line_prints():
    for module in MODULES:
        calls = [n for n in ast.walk(floors.tree(module)) if isinstance(n, ast.Call)]
        prints = any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls)
        assert not prints or module.parent.name == "cli", module.name


def test_nothing_that_loads_a_file_can_run_one():
    # What numba does with its own cache is held to a private folder by kernels/compile.py.
    modules = {"pickle", "cloudpickle", "marshal", "shelve", "joblib", "dill", "code", "runpy"}
    # What processes of ours hand to each other in memory is pickled, as by the standard library.
    own = {"mapped": {"pickle"}}
    builtins = {"eval", "exec", "compile", "__import__", "execfile"}
    methods = {"load_module", "exec_module", "fromfile", "memmap", "unpickle"}
    for module in MODULES:
        imported = {name.split(".")[0] for name in floors.imported(module)}
        assert not imported & modules - own.get(module.stem, set()), module.name
        for node in ast.walk(floors.tree(module)):
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
