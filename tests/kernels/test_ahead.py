"""Kernels are compiled by other processes side by side, and by this one where those fail."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numba import config

import fastsoftmax
from fastsoftmax.kernels import ahead, code
from fastsoftmax.kernels import compile as policy
from fastsoftmax.kernels.checksum import _fold
from fastsoftmax.kernels.compile import Call
from fastsoftmax.kernels.permute import fisher_yates

pytestmark = [
    pytest.mark.skipif(config.DISABLE_JIT, reason="there is no machine code"),
    pytest.mark.skipif(sys.platform != "linux", reason="one process compiles alone"),
]
CALLS = [
    Call(fisher_yates, ("array <i8 1 C", "array <u8 1 C")),
    Call(_fold, ("array <u8 1 C", "array <u8 1 C", "uint64")),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a fresh folder for machine code, here and in processes that this one starts."""
    monkeypatch.setenv("FASTSOFTMAX_CACHE", str(tmp_path))
    monkeypatch.setattr(code, "FOLDER", code.code_folder())
    for call in CALLS:
        monkeypatch.setattr(call.kernel, "_loaded", {})
    return code.FOLDER


def kept(folder):
    return sorted(path.name.split("-")[0] for path in folder.glob("*.code"))


def test_processes_compile_what_is_foreseen_and_leave_nothing_behind(folder):
    before = list(policy.compiled)
    with ahead.Crew(CALLS, 2) as crew:
        for call in CALLS:
            call.kernel.ready(call.kinds)
    assert kept(folder) == ["checksum._fold", "permute.fisher_yates"]
    assert policy.compiled == before
    assert crew._process.returncode == 0
    assert not any(thread.is_alive() for thread in crew._threads)


def test_processes_wait_for_calls_that_are_added(folder):
    before = list(policy.compiled)
    with ahead.Crew(CALLS[:1], 2, more=True) as crew:
        crew.wait_for(CALLS[0])
        assert all(thread.is_alive() for thread in crew._threads)
        crew.add(CALLS)
        for call in CALLS:
            call.kernel.ready(call.kinds)
    assert kept(folder) == ["checksum._fold", "permute.fisher_yates"]
    assert policy.compiled == before
    with ahead.Crew(CALLS[:1], 2, more=True) as crew:  # none comes
        pass
    assert crew._process.returncode is not None
    assert not any(thread.is_alive() for thread in crew._threads)


def test_what_they_compile_has_the_bytes_that_one_process_gives_it(folder):
    with ahead.Crew(CALLS, 2) as crew:
        for call in CALLS:
            crew.wait_for(call)
    theirs = [code.find(call.kernel.name, call.kinds) for call in CALLS]
    assert theirs == [call.kernel.compile(call.kinds) for call in CALLS]


@pytest.mark.parametrize(
    "program",
    ["raise SystemExit", "import os; os.kill(os.getpid(), 9)", "import os; os.write(4, b'what')"],
    ids=["ends", "is killed", "talks nonsense"],
)
def test_where_a_process_fails_this_one_compiles(folder, monkeypatch, program):
    monkeypatch.setattr(ahead, "PROGRAM", program)
    before = len(policy.compiled)
    with ahead.Crew(CALLS, 2):
        for call in CALLS:
            call.kernel.ready(call.kinds)
    assert len(policy.compiled) == before + 2
    assert len(kept(folder)) == 2


def test_where_no_process_can_be_started_this_one_compiles(folder, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/proc/nowhere/python3")
    before = len(policy.compiled)
    with ahead.Crew(CALLS, 2):
        for call in CALLS:
            call.kernel.ready(call.kinds)
    assert len(policy.compiled) == before + 2


@pytest.mark.parametrize("executable", ["", "/usr/bin/app", None])
def test_an_application_that_python_is_built_into_is_not_started_again(monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    assert not ahead.can_help()


def test_of_many_processes_that_begin_at_once_one_has_others_compile(folder):
    with ahead.Crew(CALLS, 2) as first, ahead.Crew(CALLS, 2) as second:
        assert first._process is not None
        assert second._process is None
        second.wait_for(CALLS[0])  # which nobody of the second will compile
    with ahead.Crew(CALLS, 2) as third:
        assert third._process is not None


def test_what_is_not_done_at_the_end_is_left(folder):
    with ahead.Crew(CALLS, 2) as crew:
        pass
    assert crew._process.returncode is not None
    assert not any(thread.is_alive() for thread in crew._threads)
    assert not policy.helpers


def test_whoever_waits_sees_an_end_when_the_processes_are_gone(folder):
    with ahead.Crew(CALLS, 2) as crew:
        waiting = threading.Thread(target=crew.wait_for, args=(CALLS[1],))
        waiting.start()
        os.killpg(crew._process.pid, 9)
        waiting.join(20)
        assert not waiting.is_alive()


COLD = """
import sys
import numpy as np, fastsoftmax
from fastsoftmax.kernels.compile import compiled
rng = np.random.default_rng(0)
X = rng.normal(size=(300, 12))
y = (X[:, 0] > 0) * 1 + (X[:, 1] > 0)
told = {"learning_rate": 0.1, "epochs": 1}  # which needs few kernels
print(fastsoftmax.train(X, y, threads=int(sys.argv[1]), **told).coef.tobytes().hex())
print(len(compiled), "numba" in sys.modules)
"""


def test_a_first_run_on_two_cores_leaves_the_compiler_to_others_and_learns_the_same(tmp_path):
    told = []
    for threads in ("2", "1"):
        finished = subprocess.run(
            [sys.executable, "-c", COLD, threads],
            env={**os.environ, "FASTSOFTMAX_CACHE": str(tmp_path / threads)},
            cwd=Path(fastsoftmax.__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        told.append(finished.stdout.splitlines())
    assert told[0][0] == told[1][0]
    assert told[0][1] == "0 False"
    assert told[1][1].endswith(" True")


def test_kernels_that_are_foreseen_do_nothing():
    order = np.arange(4)
    with policy.foreseeing() as calls:
        Call(fisher_yates, ()).kernel._load(("array <i8 1 C", "array <u8 1 F"))([])
    assert calls == [Call(fisher_yates, ("array <i8 1 C", "array <u8 1 F"))]
    assert order.tolist() == [0, 1, 2, 3]
