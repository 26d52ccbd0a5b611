"""Kept machine code: private, started afresh by any change, repaired when damaged, never needed."""

import ast
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax.kernels import code
from fastsoftmax.kernels import compile as policy
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.level import host_levels
from fastsoftmax.kernels.loading import SYMBOL
from fastsoftmax.kernels.operands import Coefficients
from fastsoftmax.kernels.permute import fisher_yates

PROGRAM = """
import sys, warnings
import numpy as np
from fastsoftmax.kernels import compile as policy
from fastsoftmax.kernels.permute import fisher_yates
order = np.arange(5)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    fisher_yates(order, np.arange(4, dtype=np.uint64) << np.uint64(61))
print(order.tolist(), len(policy.compiled), [str(w.message) for w in caught])
assert ("numba" in sys.modules) == bool(policy.compiled)
"""


def run(tmp_path, **environment):
    """Run PROGRAM in a fresh process with its machine code kept below tmp_path."""
    settings = {"FASTSOFTMAX_CACHE": str(tmp_path / "code"), "PYTHONWARNINGS": "default"}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **settings, **environment},
        cwd=Path(fastsoftmax.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stdout.strip()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Return a folder in which a process has kept its machine code."""
    folder = tmp_path_factory.mktemp("kept")
    assert run(folder) == "[3, 2, 0, 4, 1] 1 []"
    return folder


@pytest.fixture
def own(kept, tmp_path):
    """Return a copy of that machine code, in the folder that `run` and `called` keep theirs in."""
    return Path(shutil.copytree(kept / "code", tmp_path / "code"))


@pytest.fixture
def called(tmp_path, monkeypatch):
    """Return a function that does here what PROGRAM does in a fresh process, in a moment."""

    def call(**environment):
        for name, value in {"FASTSOFTMAX_CACHE": str(tmp_path / "code"), **environment}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(code, "FOLDER", code.code_folder())
        monkeypatch.setattr(code, "_warned", False)
        monkeypatch.setattr(fisher_yates, "_loaded", {})
        before, order = len(policy.compiled), np.arange(5)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fisher_yates(order, np.arange(4, dtype=np.uint64) << np.uint64(61))
        new = len(policy.compiled) - before
        return f"{order.tolist()} {new} {[str(w.message) for w in caught]}"

    return call


def test_machine_code_is_kept_for_the_next_process_in_a_private_folder(own, tmp_path):
    assert run(tmp_path) == "[3, 2, 0, 4, 1] 0 []"
    (folder,) = own.iterdir()
    assert folder.name == code.source_digest()
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(len(host_levels()) < 2, reason="a processor of the lowest level")
def test_machine_code_is_kept_for_each_level(own, tmp_path):
    lower = {"FASTSOFTMAX_LEVEL": list(host_levels())[-2]}
    assert run(tmp_path, **lower) == "[3, 2, 0, 4, 1] 1 []"
    assert run(tmp_path, **lower) == "[3, 2, 0, 4, 1] 0 []"
    assert run(tmp_path) == "[3, 2, 0, 4, 1] 0 []"


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:100], lambda data: data[:-1] + b"?", lambda data: b"nonsense"],
    ids=["cut off", "a byte", "another file"],
)
def test_damaged_code_is_compiled_again_with_one_warning(own, called, damage):
    for path in own.rglob("*.code"):
        path.write_bytes(damage(path.read_bytes()))
    assert "damaged" in called()
    assert called() == "[3, 2, 0, 4, 1] 0 []"


def test_code_that_is_kept_under_another_name_is_not_taken_for_ones_own(own, called):
    (path,) = own.rglob("*.code")
    other = path.read_bytes().replace(b"fisher_yates", b"fisher_yakes")
    path.write_bytes(other)
    assert "damaged (ValueError)" in called()


def test_nothing_is_kept_where_others_could_write(own, called):
    assert called() == "[3, 2, 0, 4, 1] 0 []"
    (folder,) = own.iterdir()
    folder.chmod(0o777)
    assert called() == called() == "[3, 2, 0, 4, 1] 1 []"


@pytest.mark.parametrize(
    ("mode", "kept"), [(0o700, True), (0o755, True), (0o1777, True), (0o770, False), (0o777, False)]
)
def test_nothing_is_kept_where_others_could_put_another_folder(tmp_path, monkeypatch, mode, kept):
    monkeypatch.setenv("FASTSOFTMAX_CACHE", str(tmp_path))
    tmp_path.chmod(mode)
    assert (code.code_folder() is not None) == kept


def test_nothing_is_kept_in_the_folder_of_somebody_else(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTSOFTMAX_CACHE", str(tmp_path / "theirs"))
    assert code.code_folder() is not None
    owner = (tmp_path / "theirs").stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert code.code_folder() is None


def test_the_code_of_many_functions_damaged_is_one_warning(monkeypatch):
    monkeypatch.setattr(code, "_warned", False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for damage in (EOFError(), ValueError("x"), ImportError()):
            code.warn_of_damage(damage)
    assert [str(each.message)[:26] for each in caught] == ["kept machine code was dama"]


def test_nothing_is_kept_where_there_is_no_home(monkeypatch):
    for name in ("FASTSOFTMAX_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # no such user: KeyError
    assert code.code_folder() is None


FAMILY = """
import multiprocessing, os, sys, threading
import numpy as np, fastsoftmax

def fit():
    X = np.random.default_rng(0).normal(size=(300, 800))  # wide enough for a team of threads
    y = (X[:, 0] > 0) * 1 + (X[:, 1] > 0)
    return fastsoftmax.train(X, y, epochs=1, learning_rate=1e-3, threads=2).coef.tobytes()

def child(queue):
    queue.put(fit())

if __name__ == "__main__":
    want = fit()
    forked = os.fork()
    if not forked:
        os._exit(0 if fit() == want else 3)
    print("forked", os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]))
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    spawned = context.Process(target=child, args=(queue,))
    spawned.start()
    print("spawned", queue.get() == want)
    spawned.join()
    got = [None] * 4
    def work(i):
        got[i] = fit()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("in threads", got == [want] * 4)
"""


def test_children_and_threads_train_the_same_bits(tmp_path):
    (tmp_path / "family.py").write_text(FAMILY)
    finished = subprocess.run(
        [sys.executable, tmp_path / "family.py"],
        env={**os.environ, "PYTHONPATH": str(Path(fastsoftmax.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert finished.stdout == "forked 0\nspawned True\nin threads True\n"


@pytest.mark.parametrize(
    "environment",
    [
        {"FASTSOFTMAX_CACHE": "off"},
        {"FASTSOFTMAX_CACHE": "/proc/nowhere"},
        {"FASTSOFTMAX_CACHE": "", "HOME": "/proc/nowhere", "XDG_CACHE_HOME": ""},
    ],
    ids=["off", "unwritable", "no home"],
)
def test_a_run_needs_no_place_to_keep_code(environment, called):
    package = Path(fastsoftmax.__file__).parent
    for _ in range(2):
        assert called(**environment) == "[3, 2, 0, 4, 1] 1 []"
    assert not list(package.rglob("*.code"))  # it may lie on a disk that nobody can write


def test_numba_keeps_its_own_folder_for_others(tmp_path):
    run(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "theirs"))
    assert not list(tmp_path.rglob("*.nb[ic]"))


def test_any_change_of_a_kernel_source_changes_the_digest(tmp_path, monkeypatch):
    before = code.source_digest()
    for path in Path(code.__file__).parent.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(code, "__file__", str(tmp_path / "code.py"))
    assert code.source_digest() == before
    with (tmp_path / "softmax.py").open("a") as source:
        source.write("\n")
    assert code.source_digest() != before


def test_the_digest_reads_every_kernel_source():
    folder = Path(code.__file__).parent
    assert sorted(folder.rglob("*.py")) == sorted(folder.glob("*.py")), "kernels has no folders"


def test_no_kernel_allocates():
    makers = {"zeros", "empty", "ones", "full", "arange", "array", "copy", "zeros_like"}
    for path in Path(code.__file__).parent.glob("*.py"):
        functions = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]
        for function in functions:
            if any("kernel(" in ast.unparse(mark) for mark in function.decorator_list):
                calls = [n.func for n in ast.walk(function) if isinstance(n, ast.Call)]
                made = {call.attr for call in calls if isinstance(call, ast.Attribute)} & makers
                assert not made, f"{path.name}: {function.name}"


WARM = """
import sys
from fastsoftmax.cli.main import main
from fastsoftmax.kernels.compile import compiled
code = main(["train", "examples/data/digits-train.parquet", "--target", "digit",
             "--learning-rate", "0.1", "--epochs", "1", "--output", sys.argv[1]])
print(code, len(compiled), *sorted({"numba", "scipy", "pandas"} & set(sys.modules)))
"""


def test_a_run_whose_code_is_kept_says_nothing_of_compiling_and_never_imports_the_compiler(
    tmp_path,
):
    settings = {"FASTSOFTMAX_CACHE": str(tmp_path / "code")}
    told = []
    for _ in range(2):
        finished = subprocess.run(
            [sys.executable, "-c", WARM, tmp_path / "model"],
            env={**os.environ, **settings},
            cwd=Path(fastsoftmax.__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        lines = finished.stderr.splitlines()
        told.append([line for line in lines if line.startswith("compiling, once: ")])
    first, last = (line.split()[2:] for line in told[0])  # of a terminal, all
    assert first == ["0", "of", last[2]]
    assert last == [last[2], "of", last[2]]
    assert not told[1]
    assert finished.stdout.splitlines()[-1] == "0 0"


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Return a file of machine code as a platform wheel brings it, where nothing else is kept."""
    kinds = ("array <i8 1 C", "array <u8 1 C")
    monkeypatch.setattr(code, "FOLDER", tmp_path)
    made = fisher_yates.compile(kinds)
    monkeypatch.setattr(code, "BUILT", tmp_path)
    monkeypatch.setattr(code, "FOLDER", None)
    assert code.find(fisher_yates.name, kinds) == made
    (path,) = tmp_path.iterdir()
    return path, kinds


def test_code_that_a_wheel_brings_along_is_used_and_its_damage_noticed(shipped, monkeypatch):
    path, kinds = shipped
    monkeypatch.setattr(code, "_warned", False)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert code.find(fisher_yates.name, kinds) is None


@pytest.mark.parametrize("other", ["numba", "llvmlite"])
def test_code_that_a_wheel_brings_along_is_none_for_another_compiler(shipped, monkeypatch, other):
    monkeypatch.setattr(code, "installed", lambda package: "0" if package == other else "1")
    assert not code.has(fisher_yates.name, shipped[1])


def test_a_package_that_was_not_built_so_brings_no_code_along():
    assert not code.BUILT.exists()


def test_an_object_file_tells_the_name_of_its_kernel_alone():
    kinds = ("array <i8 1 C", "array <u8 1 C")
    found = fisher_yates.compile(kinds).object_file
    assert SYMBOL.encode() in found
    assert b"permute" not in found
    assert fisher_yates.compile(kinds).object_file == found  # which numba counts as another


def test_arguments_of_every_kind_reach_a_kernel():
    def sums(matrix, pair, none, count, factor, flag, single):
        total = 0.0
        for i in range(matrix.shape[0]):
            for j in range(matrix.shape[1]):
                total += matrix[i, j]
        more = pair.W[0, 0] + pair.b[1, 0]
        return total * factor + more, count + (none is None), flag, single

    pair = Coefficients(np.ones((2, 3), np.float32), np.full((4, 2), 2.0)[::2])
    ours = kernel(EXACT)(sums)
    for matrix in (np.ones((3, 4)), np.ones((3, 4)).T, np.ones((6, 8))[::2, ::3]):
        told = (matrix, pair, None, -2, 0.5, True, np.float32(0.1))
        assert ours(*told) == sums(*told)
    with pytest.raises(TypeError, match="got str"):
        ours("text")
