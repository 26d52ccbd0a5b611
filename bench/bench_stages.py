"""What each stage of a block costs by itself: gather, gram, margins, recurrence, update.

Each is checked against plain NumPy on one block before it is timed. The products are given as
shares of the multiply-add peak, the gather of shuffled rows as one of the rate of reading memory.
Full gradients are timed whole, on one thread and on two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bench.bench_kernels import SHAPES
from bench.interleave import median_seconds
from fastsoftmax.data.parts import Dense
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.gather import gather, part_table
from fastsoftmax.kernels.operands import Rows, new_block, new_coefficients
from fastsoftmax.kernels.parts import Matrix
from fastsoftmax.kernels.products import all_margins, class_tiles, gram, update
from fastsoftmax.kernels.recurrence import recur
from fastsoftmax.kernels.sizes import GRAM_TILE, block_rows
from fastsoftmax.kernels.vectors import address_of
from fastsoftmax.optim.gradient import FullGradient
from tests import oracle


@kernel(EXACT)
def gather_blocks(X, rows, times):
    """Gather one block after the other."""
    finite, B = True, X.shape[0]
    blocks = rows.order.shape[0] // B
    for i in range(times):
        finite &= gather(X, np.int64(0), B, rows.order, i % blocks * B, rows.table)
    return finite


@kernel(EXACT)
def gram_of_blocks(block, times):
    """Compute the upper triangle of X X^T."""
    at_hand = address_of(block.lines, 0, 0)
    X, G = block.X[0], block.G
    for _ in range(times):
        for s in range(0, X.shape[0], GRAM_TILE):
            gram(G, X, s, X.shape[0], at_hand, at_hand)


@kernel(EXACT)
def margins_of_blocks(block, W, times):
    """Compute X W^T."""
    at_hand = address_of(block.lines, 0, 0)
    for _ in range(times):
        all_margins(block.Z, block.X[0], W, block.Z.shape[0], at_hand)


@kernel(EXACT)
def recur_blocks(block, b, rows, times):
    """Take the steps of a block's rows on their margins; these change, the work does not."""
    loss = 0.0
    for _ in range(times):
        loss += recur(block, b, None, rows, np.int64(0), block.Z.shape[0], 0.0, 1.0)[0]
    return loss


@kernel(EXACT)
def update_by_blocks(block, W, times):
    """Add R^T X to W."""
    at_hand = address_of(block.lines, 0, 0)
    X, one, zero = block.X[0], W.dtype.type(1), np.int64(0)
    for _ in range(times):
        update(
            W, None, zero, class_tiles(W.shape[0]), zero, X.shape[1], one, block.R, X, X.shape[0],
            at_hand, at_hand,
        )  # fmt: skip


class Stages:
    """A block of rows of one kind, its weights, and the stages that work on them."""

    def __init__(self, d: int, K: int, n: int, dtype: str, stored: str) -> None:
        rng = np.random.default_rng(d + K)
        kind, B = np.dtype(dtype), max(block_rows(K, d), 16)
        self.B, self.K, self.d = B, K, d
        self.part = rng.integers(0, 4, (n, d)).astype(stored)
        y = rng.integers(0, K, n).astype(np.int32)
        order, step = rng.permutation(n), np.full(n, 1e-6)
        self.rows = Rows(part_table((Matrix(self.part),)), order, y, np.ones(n), step)
        self.weights = new_coefficients(K, d, kind)
        self.weights.W[:, :d] = rng.normal(size=(K, d)) / d
        self.block = new_block(K, d, kind, B)

    def stages(self, times: int) -> dict[str, Callable[[], Any]]:
        """Return what runs each stage so many times."""
        block, W = self.block, self.weights.W
        return {
            "gather": lambda: gather_blocks(block.X[0], self.rows, times),
            "gram": lambda: gram_of_blocks(block, times),
            "margins": lambda: margins_of_blocks(block, W, times),
            "recurrence": lambda: recur_blocks(block, self.weights.b, self.rows, times),
            "update": lambda: update_by_blocks(block, W, times),
        }

    def check(self) -> None:
        """Run each stage once and compare with the plain mathematics in float64."""
        block, d, K, B = self.block, self.d, self.K, self.B
        rows, y = self.rows.order[:B], self.rows.y[:B]
        X = self.part[rows].astype(np.float64)
        W = self.weights.W[:, :d].astype(np.float64)
        limit = 1e-4 if self.weights.W.dtype == np.float32 else 1e-10
        run = self.stages(1)
        assert run["gather"]()
        np.testing.assert_array_equal(block.X[0][:, :d], X)
        run["gram"]()
        G = np.triu(block.G, 1)
        np.testing.assert_allclose(G, np.triu(X @ X.T, 1), rtol=limit)
        run["margins"]()
        np.testing.assert_allclose(block.Z[:, :K], X @ W.T, rtol=limit, atol=limit)
        loss = run["recurrence"]()
        want = oracle.State(W.copy(), np.zeros(K))
        state = oracle.descend(want, X, y, np.ones(B), np.full(B, 1e-6))
        np.testing.assert_allclose(loss, state.loss, rtol=limit)
        run["update"]()
        moved = self.weights.W[:, :d] - W
        assert np.linalg.norm(moved - (state.W - W)) <= 100 * limit * np.linalg.norm(state.W)


@pytest.mark.parametrize(("d", "K"), SHAPES)
def bench_stages(benchmark, limits, report, quick, d, K) -> None:
    """Time the stages of a shape in turn, for each kind of rows and weights."""
    if quick and K > 100:
        pytest.skip("a quick look leaves the large shapes out")
    kinds = (("float32",) * 2, ("float32", "uint8"), ("float32", "float16"), ("float64",) * 2)
    for dtype, stored in kinds[:2] if quick else kinds:
        n = max(256, min(200_000, int((2e7 if quick else 2e8) / d / np.dtype(stored).itemsize)))
        stages = Stages(d, K, n, dtype, stored)
        stages.check()
        times = max(1, int((2e7 if quick else 3e8) / (4 * K * d * stages.B)))
        runs = stages.stages(times)
        if stored != dtype:  # past the gather there is one kind of rows
            runs = {"gather": runs["gather"]}
        seconds = median_seconds(benchmark if dtype == stored == "float32" else Plain(), runs, 5)
        for name, taken in seconds.items():
            row = taken / (times * stages.B)
            flops = {"gram": stages.B * d, "margins": 2 * K * d, "update": 2 * K * d}.get(name)
            share = "" if flops is None else f"{flops / row / limits.flops[dtype]:.2f} of the peak"
            if name == "gather":
                rate = d * np.dtype(stored).itemsize / row
                share = f"{rate / limits.read:.2f} of reading memory"
            report.add(
                "The stages by themselves, one thread",
                d=d,
                K=K,
                rows=stored,
                weights=dtype,
                stage=name,
                **{"ns a row": f"{row * 1e9:,.0f}", "share": share},
            )


class Plain:
    """What stands in for the benchmark fixture where a second table row is timed in one test."""

    def pedantic(self, run: Callable[[], None], rounds: int, iterations: int) -> None:
        """Run as often as asked."""
        for _ in range(rounds * iterations):
            run()


@pytest.mark.parametrize(("d", "K"), SHAPES)
def bench_full_gradient(benchmark, limits, report, quick, d, K) -> None:
    """Time full gradients on one thread and on two; the sums are compared bit for bit."""
    if quick and K > 100:
        pytest.skip("a quick look leaves the large shapes out")
    n = max(64, min(200_000, int((1e8 if quick else 4e9) / (4 * K * d))))
    rng = np.random.default_rng(d + K)
    X = rng.random((n, d), dtype=np.float32)
    y, weight, order = rng.integers(0, K, n).astype(np.int32), np.ones(n), np.arange(n)
    full = {threads: FullGradient(K, d, "float32", threads) for threads in (1, 2)}
    sums = {}
    for threads, one in full.items():
        one.begin(np.zeros((K, d)), np.zeros(K))
        one.add((Dense(X),), order, y, weight)
        sums[threads] = one.gradient()
    residuals = np.full((n, K), 1 / K)
    residuals[order, y] -= 1
    for mine, other in zip(sums[1], sums[2], strict=True):
        np.testing.assert_array_equal(mine, other)
    want = residuals.T @ X
    assert np.linalg.norm(sums[1][0] - want) <= 1e-5 * np.linalg.norm(want)
    runs = {
        str(threads): lambda one=one: one.add((Dense(X),), order, y, weight)
        for threads, one in full.items()
    }
    seconds = median_seconds(benchmark, runs, 1 if quick else 5)
    for threads, one in full.items():
        one.close()
        rate = n / seconds[str(threads)]
        peak = limits.flops["float32"] if threads == 1 else limits.flops_all["float32"]
        report.add(
            "Full gradients, kernels alone",
            d=d,
            K=K,
            threads=threads,
            **{
                "rows/s": f"{rate:,.0f}",
                "of the peak": f"{4 * K * d * rate / peak:.2f}",
            },
        )
