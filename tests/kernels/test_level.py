"""Kernels are compiled for a level of processors, whichever is at hand, and only kernels."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from numba import config

import fastsoftmax
from fastsoftmax.errors import OptionError
from fastsoftmax.kernels import level

IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
pytestmark = [
    pytest.mark.skipif(config.DISABLE_JIT, reason="there is no machine code"),
    pytest.mark.skipif(config.CPU_NAME is not None, reason="numba's settings choose"),
]
x86 = pytest.mark.skipif(
    not IS_X86 or "x86-64-v2" not in level.host_levels(), reason="not an x86-64 processor"
)


@pytest.fixture
def chosen(monkeypatch):
    """Return a function that tells the level some environment chooses."""

    def choose(**environment):
        for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "FASTSOFTMAX_LEVEL"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return level.chosen_level()

    return choose


def python(code, *arguments, **environment):
    """Return what a program prints in a fresh process that keeps no machine code."""
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "FASTSOFTMAX_CACHE": "off", **environment},
        cwd=Path(fastsoftmax.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stdout


def test_the_highest_level_of_the_processor_is_chosen_unless_a_lower_one_is_asked_for(chosen):
    levels = level.host_levels()
    assert chosen() == list(levels.values())[-1]
    for name, want in levels.items():
        assert chosen(FASTSOFTMAX_LEVEL=name) == want


@pytest.mark.parametrize("name", ["x86-64-v9", "AVX2", "armv9"])
def test_a_level_that_the_processor_has_not_is_refused_in_one_sentence(chosen, name):
    with pytest.raises(OptionError, match=rf"^FASTSOFTMAX_LEVEL must be .* got '{name}'$"):
        chosen(FASTSOFTMAX_LEVEL=name)


def test_numbas_own_settings_win(chosen):
    assert chosen(NUMBA_CPU_NAME="generic", FASTSOFTMAX_LEVEL="nonsense") == level.GENERIC
    named = chosen(NUMBA_CPU_NAME="znver3", NUMBA_CPU_FEATURES="+avx,-fma")
    assert named == level.Level("znver3", frozenset({"avx"}), "+avx,-fma")
    assert chosen(NUMBA_CPU_NAME="host") == chosen()


@pytest.mark.parametrize(
    ("name", "width", "registers"),
    [("x86-64-v2", 16, 16), ("x86-64-v3", 32, 16), ("x86-64-v4", 64, 32)],
)
def test_lanes_and_registers_are_those_of_the_level(name, width, registers):
    assert level.LEVELS[name].vector_bytes == width
    assert level.LEVELS[name].registers == registers
    assert (level.GENERIC.vector_bytes, level.GENERIC.registers) == (16, 16)
    assert (level.ARM["armv8"].vector_bytes, level.ARM["armv8"].registers) == (16, 32)


BESIDE = """
import numba, numpy as np
from numba.core.registry import cpu_target
before = dict(vars(numba.config))
def largest(a):
    s = np.float32(0)
    for i in range(a.shape[0]):
        s += max(a[i], np.float32(1)) * a[i]
    return s
theirs = numba.njit(fastmath=True)(largest)
theirs(np.ones(9, np.float32))
from fastsoftmax.kernels.compile import FAST, kernel
ours = kernel(FAST, entry=True)(largest)
assert ours(np.ones(9, np.float32)) == 9
after = numba.njit(fastmath=True)(largest)
assert after(np.ones(9, np.float32)) == 9
assert dict(vars(numba.config)) == before
assert cpu_target.target_context.codegen().magic_tuple()[1] != "x86-64-v2"
for function in (theirs, ours, after):
    (code,) = function.inspect_asm().values()
    print("ymm" in code or "zmm" in code)
"""


@x86
@pytest.mark.skipif("x86-64-v3" not in level.host_levels(), reason="there are no wider vectors")
def test_other_users_of_numba_keep_their_processor():
    assert python(BESIDE, FASTSOFTMAX_LEVEL="x86-64-v2").split() == ["True", "False", "True"]


MODEL_AND_CODE = r"""
import hashlib, sys
from llvmlite import binding
import numpy as np
if sys.argv[1] != "host":
    there = binding.get_host_cpu_features()
    for name in there:
        there[name] = name in sys.argv[2].split(",")
    binding.get_host_cpu_name = lambda: sys.argv[1]
    binding.get_host_cpu_features = lambda: there
import fastsoftmax
from fastsoftmax.kernels import code
made = []
code.keep = lambda name, kinds, new: made.append((name, new.object_file))
X = np.random.default_rng(0).normal(size=(300, 40))
y = np.digitize(X[:, 0], [-0.5, 0.5])
told = {"learning_rate": 0.1, "epochs": 1}  # which needs few kernels
model = fastsoftmax.train(X, y, threads=1, **told)
print(hashlib.sha256(model.coef.tobytes()).hexdigest())
for name, object_file in made:
    print(name, len(object_file), hashlib.sha256(object_file).hexdigest())
"""


BUILT = r"""
from fastsoftmax.kernels.level import LEVEL
from fastsoftmax.kernels.loading import Loaded
from fastsoftmax.kernels.permute import fisher_yates
kinds = ("array <i8 1 C", "array <u8 1 C")
new = fisher_yates.compile(kinds)
try:
    Loaded(new.object_file, kinds, new.returns)
except RuntimeError as refusal:
    print(LEVEL.processor, len(new.object_file) > 500, refusal)
"""


@x86
@pytest.mark.parametrize("name", level.LEVELS)
def test_code_for_any_level_can_be_built_and_is_not_run(name):
    said = python(BUILT, FASTSOFTMAX_BUILD_LEVEL=name).strip()
    assert said == f"{name} True code for {name} is built here, and not run"


@x86
def test_another_processor_of_the_level_gets_the_same_machine_code():
    name = list(level.host_levels())[-1]
    lean = {"x86-64-v2": "nehalem", "x86-64-v3": "znver1", "x86-64-v4": "skylake-avx512"}[name]
    features = ",".join(level.LEVELS[name].features | {"sse", "sse2", "64bit", "cmov", "cx8"})
    got, want = python(MODEL_AND_CODE, lean, features), python(MODEL_AND_CODE, "host")
    sizes = [int(line.split()[1]) for line in want.splitlines()[1:]]
    assert len(sizes) >= 3
    assert max(sizes) > 10_000
    assert got == want
