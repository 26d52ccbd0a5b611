"""The machine code of the hot kernels: fused multiply-adds on the widest vectors, no slow calls."""

import functools
import re
import sys

import numpy as np
import pytest
from numba import config, version_info

from fastsoftmax.data.parts import Dense
from fastsoftmax.kernels.compile import EXACT, foreseeing, kernel
from fastsoftmax.kernels.level import LEVEL
from fastsoftmax.kernels.target import assembly
from fastsoftmax.optim.rules.choice import choose_rule
from fastsoftmax.optim.rules.rule import Task
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.options import TrainOptions

pytestmark = [
    pytest.mark.skipif(config.DISABLE_JIT, reason="there is no machine code"),
    pytest.mark.skipif(
        "fma" not in LEVEL.features, reason="not an x86 CPU with fused multiply-adds"
    ),
]
# Once for all shapes that call the same code: it takes seconds, and kept code cannot be read.
compiled_anew = functools.cache(assembly)
REGISTER = {64: "zmm", 32: "ymm"}.get(LEVEL.vector_bytes, "xmm")


def machine_code(monkeypatch, name, K, d, dtype):
    """Return the assembly of the functions of a kernel, as a run calls it.

    What Python itself calls around them is left out.
    """
    options = TrainOptions.of(dtype=dtype, threads=1)
    home = sys.modules[choose_rule(Task(K, d, options.steps)).__module__]
    fresh = kernel(EXACT)(getattr(home, name).py_func)  # one that is not loaded yet is foreseen
    monkeypatch.setattr(home, name, fresh)
    with SGD(K, d, options) as own, foreseeing() as calls:
        own.warm_up((Dense(np.zeros((0, d), dtype)),), measures=False)
    (kinds,) = {call.kinds for call in calls if call.kernel is fresh}
    listing = compiled_anew(fresh.py_func, fresh.flags, kinds)
    pieces = re.split(r"^([_A-Za-z]\w*):$", listing, flags=re.MULTILINE)
    named = zip(pieces[1::2], pieces[2::2], strict=True)
    return "\n".join(code for name, code in named if re.match(r"_ZN\d+fastsoftmax", name))


@pytest.mark.parametrize(
    ("name", "K", "d", "dtype"),
    [
        ("descend_blocks", 100, 64, "float32"),
        ("descend_lookahead", 600, 512, "float32"),
        ("descend_panels", 10, 784, "float32"),
        ("descend_panels", 10, 784, "float64"),
        ("descend_binary", 2, 28, "float32"),
        ("descend_rowwise", 7, 54, "float32"),
    ],
)
def test_hot_kernels_fuse_on_the_widest_vectors_and_call_nothing_slow(
    monkeypatch, name, K, d, dtype
):
    code = machine_code(monkeypatch, name, K, d, dtype)
    kind = "ps" if dtype == "float32" else "pd"
    fused = re.findall(rf"\bvfn?madd\d+{kind}\s.*", code)
    assert len([line for line in fused if REGISTER in line]) > 8
    assert not [line for line in fused if REGISTER not in line]
    called = re.findall(r"(?:movabsq\s+\$|callq?\s+)([A-Za-z_]\w*)", code)
    assert "log" in called  # once a block, and seen here: so would others be
    slow = re.compile(r"^(exp\d*|ldexp|pow|fma)f?$|raise|PyErr|unpickle|gil_ensure")
    assert not [symbol for symbol in called if slow.search(symbol)]


def inner_loops(function):
    """Yield the bodies of a function's loops of one block, each up to the jump back to its top."""
    pieces = re.split(r"^(\.L\w+):.*\n", function, flags=re.MULTILINE)
    for label, block in zip(pieces[1::2], pieces[2::2], strict=True):
        back = re.search(rf"\bj\w+\s+{re.escape(label)}\b", block)
        if back:
            yield block[: back.start()]


def vectors_stored_on_the_stack(function, loop):
    """Return a loop's stores of whole vectors on the stack.

    %rbp is its address only in a function that sets it so, and any pointer in others.
    """
    framed = re.search(r"movq\s+%rsp, %rbp", function)
    place = r"%r[sb]p" if framed else "%rsp"
    return re.findall(rf"vmov\w+\s+%{REGISTER}\d+, -?\d*\({place}\b.*", loop)


@pytest.mark.skipif(
    version_info[:2] == (0, 60), reason="its LLVM loads numbers earlier than registers allow"
)
def test_no_inner_loop_of_a_product_keeps_sums_in_memory(monkeypatch):
    """One sum too many for the registers made tiles two to five times as slow.

    Loops that shift bits compute exponentials, whose constants alone fill 16 registers.
    """
    code = machine_code(monkeypatch, "descend_blocks", 100, 768, "float32")
    functions = re.split(r"^\.Lfunc_end\w*:", code, flags=re.MULTILINE)
    loops = [(function, loop) for function in functions for loop in inner_loops(function)]
    products = [
        (function, loop)
        for function, loop in loops
        if loop.count("vfmadd") >= 6 and "vpslld" not in loop
    ]
    assert len(products) > 3
    for function, loop in products:
        assert not vectors_stored_on_the_stack(function, loop), loop
