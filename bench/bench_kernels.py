"""How near the per-sample kernels come to the processor's peak, for problems of many shapes.

Everything counts: the gather of shuffled rows, softmax, update. Useful work is 4 K d flops a row;
what the block form adds to it is not counted. Each case is checked against the oracle before it is
timed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest

from bench.interleave import median_seconds
from fastsoftmax.data.parts import Dense
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.options import TrainOptions
from tests import oracle

SHAPES = ((28, 2), (54, 7), (784, 10), (128, 100), (768, 1000), (2048, 1000), (1024, 10_000))
# Dtype of the model, of the rows, whether shuffled, whether averaged, threads.
CASES = {
    "in order": ("float32", "float32", False, False, 1),
    "shuffled": ("float32", "float32", True, False, 1),
    "two threads": ("float32", "float32", False, False, 2),
    "averaged": ("float32", "float32", False, True, 1),
    "uint8": ("float32", "uint8", False, False, 1),
    "float16": ("float32", "float16", False, False, 1),
    "float64": ("float64", "float64", False, False, 1),
}
CHECKED = 40  # rows, fewer where the oracle's steps take long


@functools.lru_cache(maxsize=2)
def by_the_book(K: int, X: bytes, y: bytes, eta: float) -> oracle.State:
    """Return where steps from zeros lead, in float64; the cases of a shape share their rows."""
    labels = np.frombuffer(y, np.int32)
    n = len(labels)
    rows = np.frombuffer(X).reshape(n, -1)
    state = oracle.zeros(K, rows.shape[1])
    return oracle.descend(state, rows, labels, np.ones(n), np.full(n, eta))


class Case:
    """Rows of one kind, and what steps through them."""

    def __init__(self, d: int, K: int, n: int, case: tuple[str, str, bool, bool, int]) -> None:
        dtype, stored, shuffled, averaged, threads = case
        rng = np.random.default_rng(d + K)
        self.parts = (Dense(rng.integers(0, 4, (n, d), dtype=np.uint8).astype(stored)),)
        self.y = rng.integers(0, K, n).astype(np.int32)
        self.order = rng.permutation(n) if shuffled else np.arange(n)
        self.eta = np.full(n, 0.1 / (4 * d))
        self.options = TrainOptions.of(dtype=dtype, average=averaged, threads=threads)
        self.sgd = SGD(K, d, self.options)
        self.check(K, d)

    def check(self, K: int, d: int) -> None:
        """Take the first steps in float64 by the book, and compare."""
        rows = self.order[: CHECKED if K * d < 2**22 else CHECKED // 4]
        w = np.ones(len(rows))
        X = self.parts[0].values[rows].astype(np.float64)
        want = by_the_book(K, X.tobytes(), self.y[rows].tobytes(), float(self.eta[0]))
        with SGD(K, d, self.options) as fresh:
            tally = fresh.step(self.parts, rows, self.y[rows], w, self.eta[: len(rows)])
            fresh.weights.settle()
            coef, _ = fresh.weights.mean()
        np.testing.assert_allclose(tally.loss, want.loss, rtol=1e-5)
        W = want.W_sum / len(rows) if self.options.steps.average else want.W
        assert np.linalg.norm(coef - W) < 1e-5 * np.linalg.norm(W)

    def run(self) -> None:
        """Take one step for each row, in calls and spans as long as a training run's."""
        length, span, n = self.sgd.call_rows, self.sgd.lengths.span, len(self.order)
        for first in range(0, n, span):
            stop = min(first + span, n)
            for start in range(first, stop, length):
                here = slice(start, min(start + length, stop))
                rows = self.order[here]
                self.sgd.step(self.parts, rows, self.y[rows], np.ones(len(rows)), self.eta[here])


@pytest.mark.parametrize(("d", "K"), SHAPES)
def bench_shapes(benchmark, limits, report, quick, d, K) -> None:
    """Time all cases of a shape in turn."""
    flops = 4 * K * d
    # Long enough that two threads, begun on one core, are on two for most of the time.
    n = max(64, min(1_000_000 if d < 100 else 200_000, int((4e7 if quick else 2.5e10) / flops)))
    cases = {name: Case(d, K, n, case) for name, case in CASES.items()}
    runs: dict[str, Callable[[], None]] = {name: case.run for name, case in cases.items()}
    seconds = median_seconds(benchmark, runs, 1 if quick else 5)
    for case in cases.values():
        case.sgd.close()
    for name, (dtype, _, _, _, threads) in CASES.items():
        rate = n / seconds[name]
        peak = limits.flops[dtype] if threads == 1 else limits.flops_all[dtype]
        report.add(
            "Exact per-sample steps, kernels alone",
            d=d,
            K=K,
            case=name,
            **{
                "rows/s": f"{rate:,.0f}",
                "GFLOP/s": f"{rate * flops / 1e9:.1f}",
                "of the peak": f"{rate * flops / peak:.2f}",
                "time, in order = 1": f"{seconds[name] / seconds['in order']:.2f}",
            },
        )
