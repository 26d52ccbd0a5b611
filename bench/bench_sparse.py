"""Steps over sparse rows: how many a second for few and many classes, and what limits them.

Rows have about 42 words, drawn as often as ranks of words in a language are, on one thread. A step
reads the K weights of each word twice and writes them once. So beside it stands a loop that does
only this, over the same words in the same order: what latency and bandwidth allow. Steps are
compared with those of plain NumPy before they are timed.
"""

from __future__ import annotations

import numpy as np
import pytest

from bench.interleave import median_seconds
from fastsoftmax.data.parts import Sparse
from fastsoftmax.kernels.compile import kernel
from fastsoftmax.kernels.vectors import lanes, load, splat, store
from fastsoftmax.kernels.workspace import aligned, padded
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.options import TrainOptions
from tests import oracle

CLASSES = (2, 16, 58, 250, 1000, 4000)
WORDS, DRAWN, FEATURES = 42, 56, 2**16
MOST_ROWS, PRODUCTS = 40_000, 6e8  # rows, and words times classes, of a case
CHECKED = 10  # rows
TOUCHED = 3  # times that a step reads or writes the weights of a word


@kernel()
def touch(W, indptr, index, order):
    """Read the weights of each row's features, and read them again and write them."""
    step = lanes(W)
    for t in order:
        total = splat(W, W.dtype.type(0))
        for at in range(indptr[t], indptr[t + 1]):
            for k in range(0, W.shape[1], step):
                total = total + load(W, index[at], k)
        for at in range(indptr[t], indptr[t + 1]):
            for k in range(0, W.shape[1], step):
                store(W, index[at], k, load(W, index[at], k) + total)


def draw_rows(n: int) -> Sparse:
    """Return rows of words by their ranks, each once, of a norm of 1."""
    rng = np.random.default_rng(0)
    drawn = rng.zipf(1.15, (n, DRAWN))
    ranks = np.where(drawn > FEATURES, rng.integers(1, FEATURES + 1, drawn.shape), drawn)
    ranks = np.sort(ranks - 1, axis=1)
    is_new = np.diff(ranks, axis=1, prepend=-1) > 0
    counts = is_new.sum(axis=1)
    value = np.repeat(1 / np.sqrt(counts), counts).astype(np.float32)
    ends = np.concatenate([[0], np.cumsum(counts)])
    return Sparse(ends, ranks[is_new].astype(np.int32), value, FEATURES)


class Case:
    """Rows, classes drawn for them, and what steps through them."""

    def __init__(self, part: Sparse, K: int, *, averaged: bool) -> None:
        rng = np.random.default_rng(K)
        self.part, n = part, part.rows
        self.order, self.y = rng.permutation(n), rng.integers(0, K, n).astype(np.int32)
        self.options = TrainOptions.of(average=averaged, threads=1)
        self.sgd = SGD(K, part.width, self.options, part.nonzeros / n)
        self.check(K)

    def check(self, K: int) -> None:
        """Compare some steps from zeros with the oracle's, on the features that these rows have."""
        rows = self.part[:CHECKED]
        used, index = np.unique(rows.arrays[1], return_inverse=True)
        few = Sparse(rows.indptr, index.astype(np.int32), rows.value, len(used))
        X, w, eta = np.zeros((CHECKED, len(used))), np.ones(CHECKED), np.full(CHECKED, 0.5)
        few.write_to(X)
        state = oracle.zeros(K, len(used))
        want = oracle.descend(state, X, self.y[:CHECKED], w, eta)
        with SGD(K, len(used), self.options, few.nonzeros / CHECKED) as fresh:
            tally = fresh.step((few,), np.arange(CHECKED), self.y[:CHECKED], w, eta)
        np.testing.assert_allclose(tally.loss, want.loss, rtol=1e-5)

    def run(self) -> None:
        """Take one step for each row, in calls as long as a training run's."""
        step, w = np.full(len(self.order), 0.05), np.ones(len(self.order))
        for start in range(0, len(self.order), self.sgd.call_rows):
            some = slice(start, start + self.sgd.call_rows)
            at = self.order[some]
            self.sgd.step((self.part,), at, self.y[at], w[some], step[some], ends=True)


@pytest.mark.parametrize("K", CLASSES)
def bench_sparse(benchmark, report, limits, quick, K) -> None:
    """Time an epoch of steps, with and without averages, and the touching of the weights alone."""
    n = int(min(MOST_ROWS, PRODUCTS / (K * WORDS))) // (10 if quick else 1)
    part = draw_rows(n)
    plain, averaged = (Case(part, K, averaged=how) for how in (False, True))
    width = padded(K, np.dtype("f4"))
    W = aligned((FEATURES, width), np.dtype("f4"))
    cases = {
        "steps": plain.run,
        "averaged": averaged.run,
        "touched": lambda: touch(W, part.indptr, part.arrays[1], plain.order),
    }
    taken = median_seconds(benchmark, cases, 1 if quick else 5)
    moved = TOUCHED * 4 * K * part.nonzeros / taken["steps"]
    report.add(
        f"Sparse rows: steps on {FEATURES:,} features, one thread",
        K=f"{K:,}",
        **{
            "nonzeros a row": f"{part.nonzeros / n:.0f}",
            "rows/s": f"{n / taken['steps']:,.0f}",
            "averaged, rows/s": f"{n / taken['averaged']:,.0f}",
            "million nonzeros/s": f"{part.nonzeros / taken['steps'] / 1e6:,.1f}",
            "share of touching the weights alone": f"{taken['touched'] / taken['steps']:.0%}",
            "share of reading memory in order": f"{moved / limits.read:.0%}",
        },
    )
